//! The request hash (gateway.md 4): ties an answer to its request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use saatkond_pki::digest::sha512;

/// SHA-512.
pub type Digest = [u8; 64];

/// The value of `X-Road-Request-Hash`: of the REST part alone without a body, of both digests with one.
#[must_use]
pub fn request_hash(rest: &Digest, body: Option<&Digest>) -> String {
    match body {
        None => STANDARD.encode(rest),
        Some(body) => STANDARD.encode(sha512(&[rest.as_slice(), body.as_slice()].concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET\r\n/r1/INST/GOV/100/PROV/pets/v2/pets/1?x=1\r\nX-Road-Client:INST/GOV/200/CONS\r\n\
        Accept:application/json\r\nx-road-request-id:1b4e28ba-2fa1-11d2-883f-0016d3cca427\r\n\
        x-road-id:INST-3f2504e0-4f89-41d3-9a0c-0305e82c3301\r\n";
    const POST: &str = "POST\r\n/r1/INST/GOV/100/PROV/pets/v2/pets\r\nX-Road-Client:INST/GOV/200/CONS\r\n\
        Content-Type:application/json\r\nX-Road-Id:msg-42\r\n\
        x-road-request-id:1b4e28ba-2fa1-11d2-883f-0016d3cca427\r\n";

    #[test]
    fn t058_the_vectors_of_the_rule() {
        assert_eq!((GET.len(), POST.len()), (214, 180));
        assert_eq!(
            request_hash(&sha512(GET.as_bytes()), None),
            "Tb7pCYdEk4d5aK2cisZPmONHtMKm8E0nj5ywxKO/YKG6Mz1+DYY/KoCOzn0JrKXy2hxz4qgsb7j5DhIW+rlBqQ=="
        );
        assert_eq!(
            request_hash(&sha512(POST.as_bytes()), Some(&sha512(br#"{"name":"Siddu"}"#))),
            "8Y2JDhx+dlMAeAQqElhh8oKpOlk5iqQAT9PbXgpfcUtHqq1bSx/NFBSu8qnJhk3g34ubdN5Fv/T3DIOaN2Q6UQ=="
        );
    }
}
