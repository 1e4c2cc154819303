//! The token corpus: what must be refused, with the code it must be refused with.

use plenum_errors::Code;
use serde_json::{Value, json};

use crate::*;

const KEY: &str = "devkey";
const SECRET: &str = "a-secret-of-exactly-32-bytes-ok!";
const NOW: u64 = 1_800_000_000;

fn header(alg: &str) -> Value {
    json!({"alg": alg, "typ": "JWT"})
}

fn base() -> Value {
    json!({"iss": KEY, "sub": "alice", "exp": NOW + 600, "nbf": NOW,
        "video": {"roomJoin": true, "room": "demo/standup"}})
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = base();
    claims[claim] = value;
    claims
}

fn without(claim: &str) -> Value {
    let mut claims = base();
    claims.as_object_mut().unwrap().remove(claim);
    claims
}

/// base64url without padding, by hand: the corpus must not depend on the code under test.
fn b64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| (n << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(ALPHABET[(n >> (18 - 6 * i)) as usize & 63] as char);
        }
    }
    out
}

/// A token with any header and claims, signed with HMAC-SHA-256 whatever the header says.
fn forge(header: &Value, claims: &Value, secret: &str) -> String {
    let message = format!(
        "{}.{}",
        b64(header.to_string().as_bytes()),
        b64(claims.to_string().as_bytes())
    );
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn check(token: &str) -> Result<Claims, Code> {
    let peeked = peek(token).map_err(|e| e.code())?;
    if peeked.api_key != KEY {
        return Err(Code::TokenUnknownKey);
    }
    let claims = verify(token, KEY, SECRET, NOW).map_err(|e| e.code())?;
    claims.require_room("demo/standup").map_err(|e| e.code())?;
    Ok(claims)
}

fn signed(claims: &Value) -> String {
    forge(&header("HS256"), claims, SECRET)
}

#[test]
fn good_tokens_are_accepted() {
    for (what, claims) in [
        ("plain", base()),
        ("no nbf", without("nbf")),
        ("expired within the leeway", with("exp", json!(NOW - 59))),
        ("nbf within the leeway", with("nbf", json!(NOW + 59))),
        ("a fraction of a second", with("exp", json!(NOW as f64 + 30.5))),
        ("unknown claims", with("somethingNew", json!({"a": [1]}))),
    ] {
        assert!(
            check(&signed(&claims)).is_ok(),
            "{what}: {:?}",
            check(&signed(&claims))
        );
    }
}

#[test]
fn bad_tokens_are_refused_with_their_code() {
    let good = signed(&base());
    let parts: Vec<&str> = good.split('.').collect();
    let none = header("none");
    let cases: Vec<(&str, String, Code)> = vec![
        ("empty", String::new(), Code::TokenMalformed),
        ("no dots", "garbage".into(), Code::TokenMalformed),
        ("four parts", format!("{good}.x"), Code::TokenMalformed),
        ("five parts (JWE)", "a.b.c.d.e".into(), Code::TokenMalformed),
        (
            "alg none, signature kept",
            forge(&none, &base(), SECRET),
            Code::TokenMalformed,
        ),
        (
            "alg none, no signature",
            format!("{}.{}.", b64(none.to_string().as_bytes()), parts[1]),
            Code::TokenMalformed,
        ),
        (
            "alg None",
            forge(&header("None"), &base(), SECRET),
            Code::TokenMalformed,
        ),
        (
            "RS256 header over an HMAC",
            forge(&header("RS256"), &base(), SECRET),
            Code::TokenMalformed,
        ),
        (
            "ES256 header over an HMAC",
            forge(&header("ES256"), &base(), SECRET),
            Code::TokenMalformed,
        ),
        (
            "HS512",
            forge(&header("HS512"), &base(), SECRET),
            Code::TokenMalformed,
        ),
        (
            "no alg",
            forge(&json!({"typ": "JWT"}), &base(), SECRET),
            Code::TokenMalformed,
        ),
        (
            "signature stripped",
            format!("{}.{}.", parts[0], parts[1]),
            Code::TokenSignature,
        ),
        (
            "claims swapped",
            format!(
                "{}.{}.{}",
                parts[0],
                b64(with("sub", json!("root")).to_string().as_bytes()),
                parts[2]
            ),
            Code::TokenSignature,
        ),
        (
            "other secret",
            forge(&header("HS256"), &base(), "another-secret-of-32-bytes-long!"),
            Code::TokenSignature,
        ),
        (
            "empty secret",
            forge(&header("HS256"), &base(), ""),
            Code::TokenSignature,
        ),
        (
            "unknown key",
            signed(&with("iss", json!("other"))),
            Code::TokenUnknownKey,
        ),
        ("no iss", signed(&without("iss")), Code::TokenMalformed),
        ("empty iss", signed(&with("iss", json!(""))), Code::TokenMalformed),
        (
            "iss a list",
            signed(&with("iss", json!([KEY]))),
            Code::TokenMalformed,
        ),
        ("no exp", signed(&without("exp")), Code::TokenMalformed),
        (
            "null exp",
            signed(&with("exp", Value::Null)),
            Code::TokenMalformed,
        ),
        (
            "string exp",
            signed(&with("exp", json!((NOW + 600).to_string()))),
            Code::TokenMalformed,
        ),
        (
            "negative exp",
            signed(&with("exp", json!(-1))),
            Code::TokenMalformed,
        ),
        (
            "exp past the leeway",
            signed(&with("exp", json!(NOW - 61))),
            Code::TokenExpired,
        ),
        ("exp 0", signed(&with("exp", json!(0))), Code::TokenExpired),
        (
            "nbf past the leeway",
            signed(&with("nbf", json!(NOW + 61))),
            Code::TokenNotYetValid,
        ),
        (
            "string nbf",
            signed(&with("nbf", json!("0"))),
            Code::TokenMalformed,
        ),
        (
            "huge nbf",
            signed(&with("nbf", json!(u64::MAX))),
            Code::TokenNotYetValid,
        ),
        (
            "audience",
            signed(&with("aud", json!("elsewhere"))),
            Code::TokenMalformed,
        ),
        (
            "audiences",
            signed(&with("aud", json!(["a", "b"]))),
            Code::TokenMalformed,
        ),
        ("no sub", signed(&without("sub")), Code::IdentityMissing),
        (
            "empty sub",
            signed(&with("sub", json!(""))),
            Code::IdentityMissing,
        ),
        (
            "long sub",
            signed(&with("sub", json!("x".repeat(129)))),
            Code::IdentityMissing,
        ),
        (
            "sub with a line break",
            signed(&with("sub", json!("a\nb"))),
            Code::IdentityMissing,
        ),
        ("no grant", signed(&without("video")), Code::NotPermitted),
        (
            "no roomJoin",
            signed(&with("video", json!({"room": "demo/standup"}))),
            Code::NotPermitted,
        ),
        (
            "no room",
            signed(&with("video", json!({"roomJoin": true}))),
            Code::NotPermitted,
        ),
        (
            "other room",
            signed(&with("video", json!({"roomJoin": true, "room": "demo/other"}))),
            Code::TokenWrongMeeting,
        ),
        (
            "grant of the wrong type",
            signed(&with("video", json!({"roomJoin": "yes", "room": "demo/standup"}))),
            Code::TokenMalformed,
        ),
        (
            "claims not an object",
            signed(&json!([1, 2])),
            Code::TokenMalformed,
        ),
        (
            "too long",
            signed(&with("metadata", json!("x".repeat(MAX_TOKEN_BYTES)))),
            Code::TokenMalformed,
        ),
    ];
    for (what, token, code) in cases {
        assert_eq!(check(&token).map(|_| ()), Err(code), "{what}");
    }
}

#[test]
fn every_truncation_and_flipped_byte_is_refused() {
    let good = signed(&base());
    for end in 0..good.len() {
        assert!(check(&good[..end]).is_err(), "cut at {end}");
    }
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        // The last character of the signature carries two bits that decoders may ignore.
        if at == bytes.len() - 1 {
            continue;
        }
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(
            check(std::str::from_utf8(&bytes).unwrap()).is_err(),
            "flipped at {at}"
        );
    }
}

#[test]
fn weak_secrets_neither_sign_nor_verify() {
    let claims = Claims::for_participant("alice", "demo/standup", Role::Host, NOW, 60);
    for secret in ["", "secret", "a-secret-of-exactly-31-bytes---"] {
        assert_eq!(sign(&claims, KEY, secret), Err(TokenError::WeakSecret));
        let token = forge(&header("HS256"), &base(), secret);
        assert_eq!(verify(&token, KEY, secret, NOW), Err(TokenError::WeakSecret));
    }
}

#[test]
fn roles_survive_a_round_trip_and_spell_out_their_grants() {
    for role in Role::ALL {
        let claims = Claims::for_participant("alice", "demo/standup", role, NOW, 60);
        let token = sign(&claims, KEY, SECRET).unwrap();
        let read = check(&token).unwrap();
        assert_eq!(read.role(), role);
        assert_eq!(read.video, role.grant("demo/standup"));
        assert_eq!(read.video.room_admin, role >= Role::Cohost);
        assert_eq!(read.video.can_publish, Some(role >= Role::Participant));
        assert_eq!(role.as_str().parse(), Ok(role));
    }
    assert!("Host".parse::<Role>().is_err());
}

#[test]
fn a_declared_role_beyond_the_grant_does_not_count() {
    let mut claims = Claims::for_participant("alice", "demo/standup", Role::Viewer, NOW, 60);
    claims.plenum = Some(PlenumClaim { role: Role::Host });
    assert_eq!(claims.role(), Role::Viewer);
    claims.video.can_publish = None;
    assert_eq!(claims.role(), Role::Participant);
}

#[test]
fn grants_keep_what_they_do_not_know() {
    let mut claims = base();
    claims["video"]["canDoTomorrow"] = json!(true);
    claims["video"]["canPublishSources"] = json!(["camera"]);
    let read = check(&signed(&claims)).unwrap();
    let written = serde_json::to_value(&read.video).unwrap();
    assert_eq!(
        written,
        json!({"roomJoin": true, "room": "demo/standup", "canDoTomorrow": true, "canPublishSources": ["camera"]})
    );
    assert_eq!(read.role(), Role::Participant);
}

#[test]
fn a_refresh_never_shortens_and_keeps_the_time_of_issue() {
    let claims = Claims::for_participant("alice", "demo/standup", Role::Host, NOW, 86_400);
    let refreshed = claims.refreshed(NOW + 300, 600);
    assert_eq!((refreshed.exp, refreshed.issued_at()), (NOW + 86_400, Some(NOW)));
    let claims = Claims::for_participant("alice", "demo/standup", Role::Host, NOW, 60);
    assert_eq!(claims.refreshed(NOW + 50, 600).exp, NOW + 650);
}

#[test]
fn errors_and_debug_output_carry_no_token() {
    let token = sign(
        &Claims {
            metadata: "canary".into(),
            ..Claims::for_participant("alice", "r", Role::Host, NOW, 60)
        },
        KEY,
        SECRET,
    )
    .unwrap();
    let claims = verify(&token, KEY, SECRET, NOW).unwrap();
    assert!(!format!("{claims:?}").contains("canary"));
    let error = verify(&token, KEY, "another-secret-of-32-bytes-long!", NOW).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(&token[..20]));
}
