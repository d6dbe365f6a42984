//! The register's HTTP interface, as `openapi.yaml` of the example describes it.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::person::{CodeError, PersonalCode};
use crate::store::{Filter, Store, StoreError};

const DEFAULT_LIMIT: u16 = 20;
const MAX_LIMIT: u16 = 100;

/// All routes.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/persons", get(list))
        // What a call of the service without a path ends in.
        .route("/persons/", get(list))
        .route("/persons/{code}", get(one))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .with_state(store)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    surname: Option<String>,
    after: Option<PersonalCodeText>,
    limit: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct PersonalCodeText(PersonalCode);

impl TryFrom<String> for PersonalCodeText {
    type Error = CodeError;

    fn try_from(text: String) -> Result<Self, CodeError> {
        text.parse().map(Self)
    }
}

#[derive(Debug, PartialEq)]
enum Problem {
    BadRequest(String),
    NotFound,
    Unavailable,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::BadRequest(message) => (StatusCode::BAD_REQUEST, message),
            Self::NotFound => (StatusCode::NOT_FOUND, "no person has this personal code".to_owned()),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "the register has no database now".to_owned()),
        };
        (status, Json(json!({"message": message}))).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "query failed");
        Self::Unavailable
    }
}

async fn one(State(store): State<Store>, Path(code): Path<String>) -> Result<Response, Problem> {
    let code: PersonalCode = code.parse().map_err(|error: CodeError| Problem::BadRequest(error.to_string()))?;
    let person = store.person(code.as_str()).await?.ok_or(Problem::NotFound)?;
    Ok(Json(person).into_response())
}

async fn list(
    State(store): State<Store>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::BadRequest(rejection.body_text()))?;
    let persons = store.persons(&filter(query)?).await?;
    Ok(Json(json!({"persons": persons})).into_response())
}

fn filter(query: ListQuery) -> Result<Filter, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::BadRequest(format!("limit must be between 1 and {MAX_LIMIT}")));
    }
    let after = query.after.map(|code| code.0.to_string()).unwrap_or_default();
    Ok(Filter { surname: query.surname, after, limit: limit.into() })
}

async fn ready(State(store): State<Store>) -> Response {
    if store.is_ready().await { "ok".into_response() } else { Problem::Unavailable.into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn call(path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(Store::default()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn without_a_database_it_lives_but_is_not_ready() {
        assert_eq!(call("/livez").await.0, StatusCode::OK);
        assert_eq!(call("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        let (status, body) = call("/persons/38001010000").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"message":"the register has no database now"}"#);
    }

    #[tokio::test]
    async fn bad_requests_are_refused_before_the_database_is_asked() {
        for path in [
            "/persons/3800101000",
            "/persons/38013010000",
            "/persons?limit=0",
            "/persons?limit=101",
            "/persons?limit=x",
            "/persons?after=1",
            "/persons?unknown=1",
            "/persons/?limit=0",
        ] {
            assert_eq!(call(path).await.0, StatusCode::BAD_REQUEST, "{path}");
        }
        assert_eq!(call("/other").await.0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_page_has_a_default_size_and_a_start() {
        let query = ListQuery { surname: Some("Tamm".into()), after: None, limit: None };
        let expected = Filter { surname: Some("Tamm".into()), after: String::new(), limit: 20 };
        assert_eq!(filter(query), Ok(expected));
    }
}
