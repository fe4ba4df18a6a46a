//! Identity tokens: what they say, how long they serve, who is let in, and an outside verifier.
//!
//! Time is passed in; the RSA key is made once for all tests, because that is slow.
#![cfg(feature = "oidc")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::pkcs8::EncodePrivateKey;
use serde_json::{Value, json};
use siftbus::identity::{
    DISCOVERY_PATH, Identity, IdentityError, Issuer, JWKS_PATH, KeyError, MAX_TOKEN_BYTES,
    REUSE_MARGIN, SigningAlgorithm, TOKEN_LIFETIME, TokenError, Verifier, VerifierLayer,
};
use siftbus::{Bus, Clock, Code, ManualClock};
use tower_layer::Layer;
use tower_service::Service;

const ACCOUNT: &str = "push@orders.example";
const AUDIENCE: &str = "https://orders.example/push";
const SECOND: Duration = Duration::from_secs(1);
const NOW: u64 = 1_767_225_600;

static RSA: LazyLock<Issuer> = LazyLock::new(Issuer::default);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn now() -> SystemTime {
    at(NOW)
}

fn verifier(issuer: &Issuer) -> Verifier {
    Verifier::new(&issuer.jwks().unwrap(), AUDIENCE, ACCOUNT).unwrap()
}

/// An issuer whose key is known, so that anything can be signed in its name.
struct Known {
    issuer: Issuer,
    key: EncodingKey,
    id: String,
}

impl Known {
    fn new() -> Known {
        let key = p256::SecretKey::random(&mut rsa::rand_core::OsRng);
        let pem = key.to_pkcs8_pem(Default::default()).unwrap();
        let issuer = Issuer::from_pem(SigningAlgorithm::Es256, &pem).unwrap();
        let id = issuer.jwks().unwrap()["keys"][0]["kid"].as_str().unwrap().to_owned();
        Known { issuer, key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(), id }
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) }
    }

    /// What the issuer would sign, with one claim replaced, or left out if it is null.
    fn with(&self, claim: &str, value: Value) -> String {
        let mut claims = claims(&self.issuer.token(ACCOUNT, AUDIENCE, now()).unwrap());
        claims[claim] = value;
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        jsonwebtoken::encode(&self.header(), &claims, &self.key).unwrap()
    }

    fn verify(&self, token: &str) -> Result<Identity, IdentityError> {
        verifier(&self.issuer).verify(token, now())
    }
}

fn claims(token: &str) -> Value {
    jsonwebtoken::dangerous::insecure_decode_claims(token).unwrap()
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let group = (0..3).fold(0, |sum, n| (sum << 8) | chunk.get(n).map_or(0, |b| *b as usize));
        (0..=chunk.len()).map(move |n| char::from(DIGITS[(group >> (18 - 6 * n)) & 63]))
    });
    digits.collect()
}

#[test]
fn a_token_says_what_the_service_says() {
    let token = RSA.token(ACCOUNT, AUDIENCE, now()).unwrap();
    let header = serde_json::to_value(jsonwebtoken::decode_header(&token).unwrap()).unwrap();
    let kid = RSA.jwks().unwrap()["keys"][0]["kid"].clone();
    assert_eq!(header, json!({ "alg": "RS256", "kid": kid, "typ": "JWT" })); // PUSH-13

    let said = claims(&token);
    let number = said["sub"].as_str().unwrap().to_owned();
    let expected = json!({
        "iss": "https://accounts.google.com", "aud": AUDIENCE, "azp": number, "sub": number,
        "email": ACCOUNT, "email_verified": true, "iat": NOW, "exp": NOW + 3_600,
    });
    assert_eq!(said, expected); // PUSH-13
    assert_eq!((number.len(), number.bytes().all(|b| b.is_ascii_digit())), (21, true)); // PUSH-14

    // The same for every issuer, another for another account.
    let other = Issuer::new(SigningAlgorithm::Es256);
    assert_eq!(claims(&other.token(ACCOUNT, "a", now()).unwrap())["sub"], number.as_str());
    assert_ne!(claims(&other.token("b@c", "a", now()).unwrap())["sub"], number.as_str());
    assert_eq!(number, "175206476587786683513"); // PUSH-14: stable over releases
}

#[test]
fn both_algorithms_verify() {
    for issuer in [&*RSA, &Issuer::new(SigningAlgorithm::Es256)] {
        let token = issuer.token(ACCOUNT, AUDIENCE, now()).unwrap();
        let identity = verifier(issuer).verify(&token, now()).unwrap();
        assert_eq!(identity.email(), ACCOUNT);
        assert_eq!((identity.issued_at(), identity.expires_at()), (NOW, NOW + 3_600)); // PUSH-13
    }
}

#[test]
fn a_token_needs_an_account() {
    let error = RSA.token("", AUDIENCE, now()).unwrap_err();
    assert_eq!((&error, error.code()), (&TokenError::NoAccount, Code::InvalidArgument)); // PUSH-15
}

#[test]
fn a_token_is_replaced_before_it_expires() {
    let clock = ManualClock::starting_at(now());
    let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    let issuer = Issuer::new(SigningAlgorithm::Es256);
    let verifier = verifier(&issuer).leeway(Duration::ZERO);

    let first = issuer.token(ACCOUNT, AUDIENCE, bus.now()).unwrap();
    clock.advance(TOKEN_LIFETIME - REUSE_MARGIN - SECOND);
    assert_eq!(issuer.token(ACCOUNT, AUDIENCE, bus.now()).unwrap(), first); // PUSH-14
    assert_ne!(issuer.token(ACCOUNT, "another", bus.now()).unwrap(), first);

    clock.advance(SECOND);
    let second = issuer.token(ACCOUNT, AUDIENCE, bus.now()).unwrap();
    assert_ne!(second, first); // PUSH-14
    assert!(verifier.verify(&first, bus.now()).is_ok(), "replaced while it is still valid");
    clock.advance(REUSE_MARGIN);
    assert_eq!(verifier.verify(&first, bus.now()), Err(IdentityError::Expired));
    assert!(verifier.verify(&second, bus.now()).is_ok());

    // A clock that was set back gets a token of its own time.
    let early = issuer.token(ACCOUNT, AUDIENCE, now()).unwrap();
    assert_eq!(claims(&early)["iat"], NOW);
}

#[test]
fn more_accounts_than_are_kept_get_tokens_all_the_same() {
    let issuer = Issuer::new(SigningAlgorithm::Es256);
    for n in 0..1_030 {
        let email = format!("{n}@orders.example");
        assert_eq!(claims(&issuer.token(&email, AUDIENCE, now()).unwrap())["email"], email);
    }
}

#[test]
fn wrong_claims_are_refused() {
    let known = Known::new();
    let cases = [
        ("iss", json!("https://evil.example"), IdentityError::Issuer, 401),
        ("iss", Value::Null, IdentityError::Malformed, 401),
        ("aud", json!("https://other.example/push"), IdentityError::Audience, 401),
        ("aud", json!([AUDIENCE]), IdentityError::Malformed, 401),
        ("aud", Value::Null, IdentityError::Malformed, 401),
        ("email", json!("stranger@orders.example"), IdentityError::Account, 403),
        ("email", Value::Null, IdentityError::Unverified, 401),
        ("email_verified", json!(false), IdentityError::Unverified, 401),
        ("email_verified", Value::Null, IdentityError::Unverified, 401),
        ("exp", Value::Null, IdentityError::Malformed, 401),
        ("exp", json!("never"), IdentityError::Malformed, 401),
        ("exp", json!(NOW - 10), IdentityError::Expired, 401),
        ("iat", json!(NOW + 11), IdentityError::NotYetValid, 401),
        ("iat", Value::Null, IdentityError::Malformed, 401),
        ("nbf", json!(NOW + 11), IdentityError::NotYetValid, 401),
    ];
    for (claim, value, error, status) in cases {
        assert_eq!(known.verify(&known.with(claim, value.clone())), Err(error.clone()), "{value}");
        assert_eq!(error.status(), status);
    }
    // What is at the edge of the leeway passes, and so does what was not changed.
    for (claim, value) in [("exp", NOW - 9), ("iat", NOW + 10), ("nbf", NOW + 10), ("iat", NOW)] {
        assert!(known.verify(&known.with(claim, json!(value))).is_ok(), "{claim} {value}");
    }
    let foreign = known.with("iss", json!("http://127.0.0.1:8085"));
    let trusting = verifier(&known.issuer).issuer("http://127.0.0.1:8085");
    assert!(trusting.verify(&foreign, now()).is_ok()); // PUSH-14
}

#[test]
fn wrong_signatures_are_refused() {
    let known = Known::new();
    let good = known.issuer.token(ACCOUNT, AUDIENCE, now()).unwrap();
    assert!(known.verify(&good).is_ok());
    let parts: Vec<&str> = good.split('.').collect();

    // Other claims under the same signature.
    let evil = base64url(claims(&known.with("email", json!("a@b"))).to_string().as_bytes());
    let tampered = [parts[0], &evil, parts[2]].join(".");
    assert_eq!(known.verify(&tampered), Err(IdentityError::Signature));

    // No signature, by every spelling.
    for none in ["none", "None", "NONE", "nOnE"] {
        let header = json!({ "alg": none, "typ": "JWT", "kid": known.id }).to_string();
        for signature in ["", parts[2]] {
            let token = [&base64url(header.as_bytes()), parts[1], signature].join(".");
            assert_eq!(known.verify(&token), Err(IdentityError::Malformed), "{none}");
        }
    }

    // A shared secret that everybody knows: the public key.
    for issuer in [&known.issuer, &*RSA] {
        let jwks = issuer.jwks().unwrap();
        let key = &jwks["keys"][0];
        let public = key["n"].as_str().or(key["x"].as_str()).unwrap();
        let kid = key["kid"].as_str().map(str::to_owned);
        let header = Header { kid, ..Header::new(Algorithm::HS256) };
        let secrets = [key.to_string().into_bytes(), public.as_bytes().to_vec()];
        for secret in secrets {
            let key = EncodingKey::from_secret(&secret);
            let token = jsonwebtoken::encode(&header, &claims(&good), &key).unwrap();
            assert_eq!(verifier(issuer).verify(&token, now()), Err(IdentityError::Algorithm));
        }
    }

    // An algorithm that is allowed, with a key that is for another one.
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": known.id }).to_string();
    let token = [&base64url(header.as_bytes()), parts[1], parts[2]].join(".");
    assert_eq!(known.verify(&token), Err(IdentityError::Algorithm));

    // The key of somebody else, under its own id and under ours.
    let stranger = Known::new();
    let theirs = stranger.issuer.token(ACCOUNT, AUDIENCE, now()).unwrap();
    assert_eq!(known.verify(&theirs), Err(IdentityError::UnknownKey));
    let theirs = jsonwebtoken::encode(&known.header(), &claims(&good), &stranger.key).unwrap();
    assert_eq!(known.verify(&theirs), Err(IdentityError::Signature));
    let nameless = Header { kid: None, ..known.header() };
    let nameless = jsonwebtoken::encode(&nameless, &claims(&good), &known.key).unwrap();
    assert_eq!(known.verify(&nameless), Err(IdentityError::UnknownKey));

    // An extension that has to be understood.
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..known.header() };
    let critical = jsonwebtoken::encode(&critical, &claims(&good), &known.key).unwrap();
    assert_eq!(known.verify(&critical), Err(IdentityError::Malformed));

    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    for garbage in ["", ".", "..", "...", "a.b.c", "é.é.é", long.as_str()] {
        assert_eq!(known.verify(garbage), Err(IdentityError::Malformed), "{garbage:?}");
    }
}

/// While keys are changed a set has the old one and the new one.
#[test]
fn keys_are_told_apart_by_their_ids() {
    let (old, new) = (&*RSA, Issuer::new(SigningAlgorithm::Es256));
    let tokens = [old, &new].map(|issuer| issuer.token(ACCOUNT, AUDIENCE, now()).unwrap());
    let mut both = old.jwks().unwrap();
    let added = new.jwks().unwrap()["keys"][0].clone();
    both["keys"].as_array_mut().unwrap().push(added);
    let verifier = Verifier::new(&both, AUDIENCE, ACCOUNT).unwrap();
    for token in &tokens {
        assert!(verifier.verify(token, now()).is_ok(), "LIB-321, PUSH-14");
    }
    let verifier = Verifier::new(&new.jwks().unwrap(), AUDIENCE, ACCOUNT).unwrap();
    assert_eq!(verifier.verify(&tokens[0], now()), Err(IdentityError::UnknownKey), "LIB-321");
    assert!(verifier.verify(&tokens[1], now()).is_ok(), "LIB-321");
}

#[test]
fn every_error_but_one_is_401() {
    use IdentityError::*;
    let unauthorized = [
        Missing,
        Malformed,
        Algorithm,
        UnknownKey,
        Signature,
        Issuer,
        Audience,
        Expired,
        NotYetValid,
        Unverified,
    ];
    assert!(unauthorized.iter().all(|error| error.status() == 401));
    assert_eq!(Account.status(), 403);
}

#[test]
fn the_header_holds_one_bearer_token() {
    let known = Known::new();
    let token = known.issuer.token(ACCOUNT, AUDIENCE, now()).unwrap();
    let verifier = verifier(&known.issuer);
    let check = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        verifier.verify_headers(&headers, now()).err()
    };
    let good = format!("Bearer {token}");
    assert_eq!(check(&[&good]), None);
    assert_eq!(check(&[&format!("bearer {token}")]), None);
    let basic = format!("Basic {token}");
    for missing in
        [&[][..], &[""], &["Bearer"], &["Bearer  "], &[&token], &[&basic], &[&good, &good]]
    {
        assert_eq!(check(missing), Some(IdentityError::Missing), "{missing:?}");
    }
}

/// Answers 200 and the e-mail of the caller; counts what reaches it.
#[derive(Clone, Default)]
struct Inner {
    calls: Arc<AtomicUsize>,
}

impl Service<Request<String>> for Inner {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let caller = request.extensions().get::<Identity>().unwrap();
        ready(Ok(Response::new(format!("{} by {}", request.body(), caller.email()))))
    }
}

#[test]
fn the_layer_lets_only_the_right_account_in() {
    let known = Known::new();
    let clock = ManualClock::starting_at(now());
    let time = clock.clone();
    let inner = Inner::default();
    let layer = VerifierLayer::new(verifier(&known.issuer), move || time.now());
    let mut service = layer.layer(inner.clone());
    let mut post = |token: Option<String>| {
        let mut request = Request::post("/push");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = service.call(request.body("order 1".to_owned()).unwrap());
        let answer = answer.now_or_never().unwrap().unwrap();
        let challenge = answer.headers().get(WWW_AUTHENTICATE);
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), challenge, answer.into_body())
    };
    let token = |email, audience| Some(known.issuer.token(email, audience, now()).unwrap());
    let invalid = Some("Bearer error=\"invalid_token\"".to_owned());

    let welcome = (200, None, format!("order 1 by {ACCOUNT}"));
    assert_eq!(post(token(ACCOUNT, AUDIENCE)), welcome);
    assert_eq!(post(None), (401, Some("Bearer".to_owned()), String::new()));
    assert_eq!(post(Some("a.b.c".to_owned())), (401, invalid.clone(), String::new()));
    assert_eq!(
        post(token(ACCOUNT, "https://other.example")),
        (401, invalid.clone(), String::new())
    );
    assert_eq!(post(token("stranger@orders.example", AUDIENCE)), (403, None, String::new()));
    clock.advance(TOKEN_LIFETIME + 10 * SECOND);
    assert_eq!(post(token(ACCOUNT, AUDIENCE)), (401, invalid, String::new()));
    assert_eq!(inner.calls.load(Ordering::SeqCst), 1, "what is refused does not reach the service");
}

#[test]
fn documents_are_where_verifiers_look() {
    let issuer = Issuer::new(SigningAlgorithm::Es256).url("http://issuer.example");
    let base = "http://127.0.0.1:8085/";
    let discovery = issuer.document(DISCOVERY_PATH, base).unwrap().unwrap();
    assert_eq!(discovery["issuer"], "http://issuer.example"); // PUSH-14
    assert_eq!(discovery["jwks_uri"], "http://127.0.0.1:8085/oauth2/v3/certs");
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let jwks = issuer.document(JWKS_PATH, base).unwrap().unwrap();
    assert_eq!(jwks, issuer.jwks().unwrap());
    let mut names: Vec<&String> = jwks["keys"][0].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"], "nothing private is shown");
    assert_eq!(issuer.document("/", base).unwrap(), None);

    let jwks = RSA.jwks().unwrap();
    let mut names: Vec<&String> = jwks["keys"][0].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["alg", "e", "kid", "kty", "n", "use"], "nothing private is shown");
}

#[test]
fn unusable_keys_are_refused() {
    for pem in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Es256] {
            let error = Issuer::from_pem(algorithm, pem).unwrap_err();
            assert_eq!(error, KeyError::Pem { algorithm: algorithm.name() });
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    }
    let short = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1_024).unwrap();
    let short = rsa::pkcs8::EncodePrivateKey::to_pkcs8_pem(&short, Default::default()).unwrap();
    let error = Issuer::from_pem(SigningAlgorithm::Rs256, &short).unwrap_err();
    assert_eq!(error, KeyError::TooShort { bits: 1_024 });

    let secret = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS256" });
    for set in [json!(null), json!({}), json!({ "keys": [] }), json!({ "keys": [secret, 1] })] {
        assert_eq!(Verifier::new(&set, AUDIENCE, ACCOUNT).unwrap_err(), KeyError::NoKeys);
    }
    // A key that is of no use does not spoil those that are.
    let known = Known::new();
    let good = known.issuer.jwks().unwrap()["keys"][0].clone();
    let set = json!({ "keys": [secret, { "kty": "new" }, good] });
    let verifier = Verifier::new(&set, AUDIENCE, ACCOUNT).unwrap();
    assert!(verifier.verify(&known.with("iat", json!(NOW)), now()).is_ok());
}

/// Checks tokens as the receivers that are out there do.
const OUTSIDE: &str = "
import json, sys, jwt
jwks, audience, tokens = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
keys = {key['kid']: jwt.PyJWK(key) for key in jwks['keys']}
def verify(token, audience):
    key = keys[jwt.get_unverified_header(token)['kid']]
    return jwt.decode(token, key.key, algorithms=[key.algorithm_name], audience=audience,
                      issuer='https://accounts.google.com', options={'verify_exp': False})
for token in tokens:
    assert verify(token, audience)['email_verified'] is True
    for wrong in (token[:-8] + 'AAAAAAAA', token):
        try:
            verify(wrong, audience if wrong != token else 'another')
        except (jwt.InvalidSignatureError, jwt.InvalidAudienceError):
            continue
        raise SystemExit('a wrong token passed')
print('verified', len(tokens))
";

#[test]
fn an_outside_library_verifies() {
    let there = Command::new("python3").args(["-c", "import jwt, cryptography"]).output();
    if !there.is_ok_and(|ran| ran.status.success()) {
        println!("skipped: python3 with PyJWT and cryptography is not here");
        return;
    }
    for issuer in [&*RSA, &Issuer::new(SigningAlgorithm::Es256)] {
        // Signed in the past: the outside library reads the system's clock for `iat`.
        let token = issuer.token(ACCOUNT, AUDIENCE, at(1_600_000_000)).unwrap();
        let jwks = issuer.jwks().unwrap().to_string();
        let ran = Command::new("python3").args(["-c", OUTSIDE, &jwks, AUDIENCE, &token]).output();
        let ran = ran.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        // PUSH-14
        assert_eq!(said.trim(), "verified 1", "{}", String::from_utf8_lossy(&ran.stderr));
    }
}

/// Checks a token with the service's own library, which fetches the keys by HTTP.
const GOOGLE: &str = "
import http.server, sys, threading
from google.oauth2 import id_token
jwks, audience, token = sys.argv[1:]
class Keys(http.server.BaseHTTPRequestHandler):
    status, data = 200, jwks.encode()
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.data)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(('127.0.0.1', 0), Keys)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f'http://127.0.0.1:{server.server_port}/certs'
said = id_token.verify_token(token, lambda *_, **__: Keys, audience, certs_url=url)
print('verified', said['email'])
try:
    id_token.verify_token(token, lambda *_, **__: Keys, 'another', certs_url=url)
    print('a wrong audience passed')
except Exception:
    pass
";

#[test]
fn the_service_s_own_library_verifies() {
    let needs = "import jwt, cryptography, google.oauth2.id_token";
    let there = Command::new("python3").args(["-c", needs]).output();
    if !there.is_ok_and(|ran| ran.status.success()) {
        println!("skipped: python3 with google-auth and PyJWT is not here");
        return;
    }
    for issuer in [&*RSA, &Issuer::new(SigningAlgorithm::Es256)] {
        // Signed now: that library reads the system's clock.
        let token = issuer.token(ACCOUNT, AUDIENCE, Bus::new().now()).unwrap();
        let jwks = issuer.jwks().unwrap().to_string();
        let ran = Command::new("python3").args(["-c", GOOGLE, &jwks, AUDIENCE, &token]).output();
        let ran = ran.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(said.trim(), format!("verified {ACCOUNT}"), "PUSH-14: {errors}");
    }
}
