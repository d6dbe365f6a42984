//! Own errors: X-Road's types, the status that each profile gives them, and their JSON and XML form (gateway.md 7).
//!
//! A failure says what went wrong; it becomes a [`Fault`] (with the id under which it is logged) only at the edge, so that
//! everything that decides stays free of randomness.

use http::StatusCode;
use saatkond_wire::configuration::ErrorProfile;
use saatkond_wire::exchange::Fault;
use uuid::Uuid;

/// Which of the two servers of an exchange found the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server of the caller.
    Client,
    /// The server in front of the called service.
    Server,
}

impl Side {
    fn prefix(self) -> &'static str {
        match self {
            Self::Client => "server.clientproxy.",
            Self::Server => "server.serverproxy.",
        }
    }

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident => $code:literal),+ $(,)?) => {
        /// Why an exchange failed. The code follows the side's prefix in an error's type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Cause { $($(#[$doc])* $variant),+ }

        impl Cause {
            /// Every cause, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// X-Road's code, lower case with underscores.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }
        }
    };
}

causes! {
    /// The caller broke the protocol: request target, method or a header. X-Road has no code of its own for it.
    BadRequest => "internal_error",
    /// Anything that should not happen.
    InternalError => "internal_error",
    /// No `X-Road-Client`.
    InvalidClientIdentifier => "invalid_client_identifier",
    /// The caller is not registered here, or nobody serves the provider.
    UnknownMember => "unknown_member",
    /// The pinned server is unknown or does not serve the provider.
    InvalidSecurityServer => "invalid_security_server",
    /// The configuration has expired.
    GlobalConfOutdated => "global_conf_outdated",
    /// A TLS identity is missing or refused.
    SslAuthenticationFailed => "ssl_authentication_failed",
    /// Nobody could be connected to.
    NetworkError => "network_error",
    /// The name of the information system does not resolve.
    UnknownHost => "unknown_host",
    /// A connection broke, or was silent for too long.
    IoError => "io_error",
    /// The peer answered something that is no exchange.
    HttpError => "http_error",
    /// The peer's message is of another media type.
    InvalidContentType => "invalid_content_type",
    /// The peer's message is not a sequence of frames.
    MimeParsingFailed => "mime_parsing_failed",
    /// The peer's message has no REST part.
    MissingRest => "missing_rest",
    /// The peer's message ends without a signature.
    MissingSignature => "missing_signature",
    /// The signature does not belong to the message.
    InvalidSignatureValue => "signature_verification.invalid_signature_value",
    /// The signature cannot be read.
    MalformedSignature => "signature_verification.malformed_signature",
    /// The signing certificate does not belong to the member.
    IncorrectCertificate => "signature_verification.incorrect_certificate",
    /// The signing certificate does not chain to an authority in force, or its time is over.
    CertValidation => "signature_verification.cert_validation",
    /// The answer does not belong to the request.
    InconsistentResponse => "inconsistent_response",
    /// No such service code.
    UnknownService => "unknown_service",
    /// The caller has no right, or the path is not one that rights can be decided on.
    AccessDenied => "access_denied",
    /// The service is out of order; the message holds the notice.
    ServiceDisabled => "service_disabled",
    /// The service has no usable address.
    ServiceMissingUrl => "service_missing_url",
    /// The peer did not use POST.
    InvalidHttpMethod => "invalid_http_method",
    /// The message is larger than the server may take.
    LoggingFailed => "logging_failed",
    /// No usable signing key.
    CannotCreateSignature => "cannot_create_signature",
    /// The provider is not registered on the server that was asked.
    ServiceFailedUnknownMember => "service_failed.unknown_member",
    /// The provider has no usable signing key on the server that was asked.
    ServiceFailedCannotCreateSignature => "service_failed.cannot_create_signature",
    /// The peer's certificate is not one that may speak for the caller.
    ServiceFailedSslAuthenticationFailed => "service_failed.ssl_authentication_failed",
    /// The peer's certificate does not chain to an authority in force, or its time is over.
    ServiceFailedCertValidation => "service_failed.ssl_authentication_failed.cert_validation",
    /// The peer's message cannot be read.
    ServiceFailedInternalError => "service_failed.internal_error",
    /// The peer's message broke off.
    ServiceFailedIoError => "service_failed.io_error",
}

impl Cause {
    /// Whether the caller broke the protocol (category 3 of gateway.md 7.1).
    fn is_callers(self) -> bool {
        matches!(self, Self::BadRequest | Self::InvalidClientIdentifier)
    }
}

/// A failed exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Found by this server.
    Own {
        /// In which role.
        side: Side,
        /// What.
        cause: Cause,
        /// For people. Never holds a body, a query or a header value of the caller.
        message: String,
    },
    /// Found by the peer; passed on unchanged.
    Peer(Fault),
}

impl Failure {
    /// A failure on the caller's side.
    pub fn client(cause: Cause, message: impl Into<String>) -> Self {
        Self::Own { side: Side::Client, cause, message: message.into() }
    }

    /// A failure on the provider's side.
    pub fn server(cause: Cause, message: impl Into<String>) -> Self {
        Self::Own { side: Side::Server, cause, message: message.into() }
    }

    /// A label of a bounded set: the code of an own failure, or `peer`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Own { cause, .. } => cause.code(),
            Self::Peer(_) => "peer",
        }
    }

    /// The fault as it travels, with `id` to find it in this server's log.
    #[must_use]
    pub fn fault(&self, profile: ErrorProfile, id: Uuid) -> Fault {
        match self {
            Self::Peer(fault) => fault.clone(),
            Self::Own { side, cause, message } => {
                let kind = if profile == ErrorProfile::Document && cause.is_callers() {
                    "client.bad_request".to_owned()
                } else {
                    format!("{}{}", side.prefix(), cause.code())
                };
                Fault { kind, message: message.clone(), detail: id.to_string() }
            }
        }
    }
}

/// The status of a fault. Only here the profiles differ in statuses (design §6.10): a `server.` type is 500, anything else
/// 400. Compared without case, since servers before 7.8 write `Server.ServerProxy.…`.
#[must_use]
pub fn status(fault: &Fault) -> StatusCode {
    let is_server = fault.kind.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("server."));
    if is_server { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST }
}

/// The form of an error body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// `application/xml`.
    ApplicationXml,
    /// `text/xml`.
    TextXml,
}

impl Form {
    /// Chooses by all `Accept` values: split at commas, parameters (also `q`) ignored, the first XML type wins, else JSON.
    pub fn by_accept<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        for value in values {
            for item in value.split(|byte| *byte == b',') {
                let kind = item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                if kind.eq_ignore_ascii_case(b"text/xml") || kind.eq_ignore_ascii_case(b"text/*") {
                    return Self::TextXml;
                }
                if kind.eq_ignore_ascii_case(b"application/xml") {
                    return Self::ApplicationXml;
                }
            }
        }
        Self::Json
    }

    /// The `Content-Type`, letter for letter as X-Road's.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::ApplicationXml => "application/xml;charset=utf-8",
            Self::TextXml => "text/xml;charset=utf-8",
        }
    }

    /// The body.
    #[must_use]
    pub fn body(self, fault: &Fault) -> Vec<u8> {
        if self == Self::Json {
            // Strings alone: serialising them cannot fail.
            return serde_json::to_vec(fault).unwrap_or_default();
        }
        let mut out = String::from(r#"<?xml version="1.0" encoding="UTF-8" standalone="no"?><error>"#);
        for (name, text) in [("type", &fault.kind), ("message", &fault.message), ("detail", &fault.detail)] {
            if text.is_empty() {
                out.extend(["<", name, "/>"]);
            } else {
                out.extend(["<", name, ">"]);
                escape_xml(text, &mut out);
                out.extend(["</", name, ">"]);
            }
        }
        out.push_str("</error>");
        out.into_bytes()
    }
}

/// Escapes character data; what XML 1.0 cannot hold at all becomes U+FFFD.
fn escape_xml(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A parser would turn a bare carriage return into a line feed.
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
}

/// The value of `X-Road-Error`: the type, without anything that a header cannot hold (a peer may send any text).
#[must_use]
pub fn header_value(fault: &Fault) -> String {
    fault.kind.chars().filter(|c| matches!(c, ' '..='~')).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: &str, message: &str) -> Fault {
        Fault { kind: kind.into(), message: message.into(), detail: "d".into() }
    }

    #[test]
    fn t020_the_profile_decides_type_and_status_of_what_the_caller_did_wrong() {
        let missing = Failure::client(Cause::InvalidClientIdentifier, "no client");
        let denied = Failure::server(Cause::AccessDenied, "no");
        for (failure, profile, kind, code) in [
            (&missing, ErrorProfile::XRoad78, "server.clientproxy.invalid_client_identifier", 500),
            (&missing, ErrorProfile::Document, "client.bad_request", 400),
            (&denied, ErrorProfile::XRoad78, "server.serverproxy.access_denied", 500),
            (&denied, ErrorProfile::Document, "server.serverproxy.access_denied", 500),
        ] {
            let fault = failure.fault(profile, Uuid::nil());
            assert_eq!((fault.kind.as_str(), status(&fault).as_u16()), (kind, code));
        }
    }

    #[test]
    fn t097_the_spelling_of_older_servers_is_500_too() {
        assert_eq!(status(&fault("Server.ServerProxy.AccessDenied", "")).as_u16(), 500);
        assert_eq!(status(&fault("Client.BadRequest", "")).as_u16(), 400);
        assert_eq!(status(&fault("serverless", "")).as_u16(), 400);
    }

    #[test]
    fn t091_to_t094_accept_chooses_the_form() {
        for (accept, expected) in [
            (&[][..], Form::Json),
            (&["application/json;charset=utf-8"], Form::Json),
            (&["foobarbaz"], Form::Json),
            (&["text/xml-patch+xml"], Form::Json),
            (&["*/*"], Form::Json),
            (&["application/*"], Form::Json),
            (&["application/xml; q=0.2"], Form::ApplicationXml),
            (&["application/xml, text/xml"], Form::ApplicationXml),
            (&["text/xml, application/xml, application/json"], Form::TextXml),
            (&["text/*"], Form::TextXml),
            (&["TEXT/XML"], Form::TextXml),
            (&["application/xml;q=0.1, application/json"], Form::ApplicationXml),
            (&["application/json", "text/xml"], Form::TextXml),
        ] {
            assert_eq!(Form::by_accept(accept.iter().map(|a| a.as_bytes())), expected, "{accept:?}");
        }
    }

    #[test]
    fn t095_hostile_messages_stay_well_formed() {
        let fault = fault("server.x", "\"<&>\u{0}\r\n]]>\u{ffff}");
        let json: serde_json::Value = serde_json::from_slice(&Form::Json.body(&fault)).unwrap();
        assert_eq!(json["message"], fault.message);
        assert_eq!(json.as_object().unwrap().len(), 3);
        let xml = String::from_utf8(Form::TextXml.body(&fault)).unwrap();
        assert!(xml.contains("<message>&quot;&lt;&amp;&gt;\u{fffd}&#13;\n]]&gt;\u{fffd}</message>"), "{xml}");
    }

    #[test]
    fn an_empty_message_is_an_empty_element() {
        let xml = String::from_utf8(Form::ApplicationXml.body(&fault("t", ""))).unwrap();
        assert_eq!(
            xml,
            r#"<?xml version="1.0" encoding="UTF-8" standalone="no"?><error><type>t</type><message/><detail>d</detail></error>"#
        );
    }

    #[test]
    fn t090_the_header_never_breaks_the_response_head() {
        assert_eq!(header_value(&fault("server.x\r\nSet-Cookie: a=ä", "")), "server.xSet-Cookie: a=");
    }
}
