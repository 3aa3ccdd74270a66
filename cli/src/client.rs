//! The people's door of a collector, as a client: JSON over HTTP with a bearer token.

use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Code, Failure};
use crate::files::read_bounded;
use crate::keyring;
use crate::output::{Output, plain};

/// A collector that does not answer within this is out of reach.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Between two pieces of an answer; a manifest that is being checked takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// What a page of a list may hold; a larger answer is not the collector's.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
/// A certificate takes a few kilobytes.
const CERTIFICATE_LIMIT: u64 = 1 << 20;
/// Items asked for at once: the most that a collector gives.
const PAGE: &str = "1000";
/// A list longer than this is not read to its end.
const ITEMS_LIMIT: usize = 1_000_000;

/// A collector, with or without a token.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// Runs a command's requests to their end.
pub fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start the network runtime", &error))?
        .block_on(work)
}

impl Client {
    /// The collector of `PRISTINE_URL` and `PRISTINE_TOKEN`, else the one last signed in to.
    pub fn signed_in(output: Output) -> Result<Self, Failure> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (url, token) = (set("PRISTINE_URL"), set("PRISTINE_TOKEN"));
        let kept = if url.is_some() && token.is_some() {
            None
        } else {
            keyring::read()?
        };
        let not_signed_in = || {
            Failure::new("not signed in")
                .why("the keyring holds no token")
                .remedy("sign in with `pristine login URL`, or set PRISTINE_URL and PRISTINE_TOKEN")
                .code(Code::Configuration)
        };
        match (url, token, kept) {
            (Some(url), Some(token), _) => Self::new(&url, Some(token), output),
            (None, Some(token), Some(kept)) => Self::new(&kept.url, Some(token), output),
            (None, None, Some(kept)) => Self::new(&kept.url, Some(kept.token), output),
            // A kept token goes to the collector that gave it, to no other.
            (Some(url), None, Some(kept)) if same_origin(&url, &kept.url) => {
                Self::new(&url, Some(kept.token), output)
            }
            _ => Err(not_signed_in()),
        }
    }

    /// A collector at `url`. `PRISTINE_CA` names a certificate (PEM) that is trusted beside the system's.
    pub fn new(url: &str, token: Option<String>, output: Output) -> Result<Self, Failure> {
        match std::env::var_os("PRISTINE_CA").filter(|path| !path.is_empty()) {
            Some(path) => Self::trusting(url, token, Path::new(&path), output),
            None => Self::build(url, token, None, output),
        }
    }

    /// A collector at `url`, whose certificate may come from this authority.
    pub fn trusting(
        url: &str,
        token: Option<String>,
        ca: &Path,
        output: Output,
    ) -> Result<Self, Failure> {
        let pem = read_bounded(ca, CERTIFICATE_LIMIT)?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| {
            Failure::new(format!("{} is not a certificate", ca.display()))
                .because(&error)
                .code(Code::Configuration)
        })?;
        Self::build(url, token, Some(certificate), output)
    }

    fn build(
        url: &str,
        token: Option<String>,
        ca: Option<Certificate>,
        output: Output,
    ) -> Result<Self, Failure> {
        let base = parse_url(url)?;
        if base.scheme() == "http" && !is_loopback(&base) {
            output.warn(format_args!(
                "{base} is not encrypted: whoever is on the way can read the token"
            ));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("pristine/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        if let Some(ca) = ca {
            builder = builder.tls_certs_merge([ca]);
        }
        let http = builder
            .build()
            .map_err(|error| Failure::new("cannot make an HTTP client").because(&error))?;
        Ok(Self { http, base, token })
    }

    /// Where this collector is.
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// Another token from now on.
    pub fn use_token(&mut self, token: String) {
        self.token = Some(token);
    }

    /// GET, one document.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.answer(self.request(Method::GET, path)?).await
    }

    /// GET of all pages of a list.
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut parts = query.to_vec();
            parts.push(("limit", PAGE));
            parts.extend(cursor.iter().map(|cursor| ("cursor", cursor.as_str())));
            let mut page = self
                .answer(self.request_with(Method::GET, path, &parts)?)
                .await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) if items.len() < ITEMS_LIMIT && cursor.as_deref() != Some(next) => {
                    cursor = Some(next.to_owned());
                }
                _ => return Ok(items),
            }
        }
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<Value, Failure> {
        self.answer(self.request(Method::POST, path)?.json(body))
            .await
    }

    /// PATCH of a JSON body.
    pub async fn patch(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<Value, Failure> {
        self.answer(self.request(Method::PATCH, path)?.json(body))
            .await
    }

    /// GET of one page of a list.
    pub async fn page(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let query: Vec<(&str, &str)> = query
            .iter()
            .map(|(name, it)| (*name, it.as_str()))
            .collect();
        self.answer(self.request_with(Method::GET, path, &query)?)
            .await
    }

    /// GET into a new file, piece by piece; how many bytes. Half an answer is no file.
    pub async fn download(
        &self,
        path: &str,
        query: &[(&str, String)],
        file: &Path,
    ) -> Result<u64, Failure> {
        let query: Vec<(&str, &str)> = query
            .iter()
            .map(|(name, it)| (*name, it.as_str()))
            .collect();
        let request = self.request_with(Method::GET, path, &query)?;
        let mut response = self.send(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(status, &read_body(response).await?));
        }
        let failed =
            |error: &std::io::Error| Failure::io(format!("cannot write {}", file.display()), error);
        let mut written = std::fs::File::create_new(file).map_err(|error| failed(&error))?;
        let mut bytes = 0;
        let done = loop {
            match response.chunk().await {
                Ok(Some(piece)) => {
                    bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    if let Err(error) = written.write_all(&piece) {
                        break Err(failed(&error));
                    }
                }
                Ok(None) => break written.sync_all().map_err(|error| failed(&error)),
                Err(error) => {
                    let broken = Failure::new("the collector's answer broke off");
                    break Err(broken.because(&error.without_url()));
                }
            }
        };
        if done.is_err() {
            // Whether it can be removed changes nothing about what failed.
            drop(std::fs::remove_file(file));
        }
        done.map(|()| bytes)
    }

    /// PUT of a file.
    pub async fn put_bytes(&self, path: &str, body: Vec<u8>) -> Result<Value, Failure> {
        let request = self
            .request(Method::PUT, path)?
            .header("content-type", "application/octet-stream");
        self.answer(request.body(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.answer(self.request(Method::DELETE, path)?).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        self.request_with(method, path, &[])
    }

    fn request_with(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, Failure> {
        let mut url = self
            .base
            .join(path.trim_start_matches('/'))
            .map_err(|error| {
                Failure::new(format!("cannot ask {} for {path}", self.base)).because(&error)
            })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| {
            Failure::new(format!("cannot reach the collector at {}", self.base))
                .because(&error.without_url())
                .remedy("is it running, and is this the address of its people's door?")
        })
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = read_body(response).await?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new(format!("{} does not answer like a collector", self.base))
                .because(&error)
                .remedy("give the address of its people's door")
        })
    }
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        let piece = response.chunk().await.map_err(|error| {
            Failure::new("the collector's answer broke off").because(&error.without_url())
        })?;
        let Some(piece) = piece else { return Ok(body) };
        if body.len() + piece.len() > ANSWER_LIMIT {
            return Err(Failure::new("cannot read the collector's answer").why("it is too large"));
        }
        body.extend_from_slice(&piece);
    }
}

/// The collector's own words for a refusal: `application/problem+json`.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let problem: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let words = |name: &str| {
        problem
            .get(name)
            .and_then(Value::as_str)
            .map(plain)
            .unwrap_or_default()
    };
    let told: Vec<String> = [words("title"), words("detail")]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let why = if told.is_empty() {
        "no reason given".to_owned()
    } else {
        told.join(": ")
    };
    let failure = Failure::new(format!("the collector refused ({})", status.as_u16())).why(why);
    match status {
        StatusCode::UNAUTHORIZED => failure
            .remedy("sign in again with `pristine login URL`")
            .code(Code::Permission),
        StatusCode::FORBIDDEN => failure
            .remedy("ask an administrator for the role that may do this")
            .code(Code::Permission),
        _ => failure,
    }
}

/// A base URL whose path ends with `/`, so that joining keeps it.
pub fn parse_url(text: &str) -> Result<Url, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("`{}` is not a collector's address", plain(text)))
            .why(why)
            .remedy("give it like https://pristine.example.org or http://127.0.0.1:8080")
    };
    let mut url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong(
            "it does not begin with http:// or https://".to_owned(),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "a password does not belong into an address".to_owned(),
        ));
    }
    url.set_query(None);
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn same_origin(one: &str, other: &str) -> bool {
    match (parse_url(one), parse_url(other)) {
        (Ok(one), Ok(other)) => one.origin() == other.origin(),
        _ => false,
    }
}

/// A name as one segment of a path, whatever bytes it has.
pub fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

/// A value in an answer as harmless text; empty where there is none.
pub fn text_of(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => plain(text),
        Some(other) => plain(&other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_without_a_password() {
        assert_eq!(
            parse_url("http://127.0.0.1:8080").unwrap().as_str(),
            "http://127.0.0.1:8080/"
        );
        assert_eq!(
            parse_url("https://h/p?x#y").unwrap().as_str(),
            "https://h/p/"
        );
        for wrong in ["", "h:1", "ftp://h", "https://u:p@h/"] {
            assert_eq!(parse_url(wrong).unwrap_err().code, Code::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_kept_token_goes_only_where_it_came_from() {
        assert!(same_origin(
            "http://127.0.0.1:8080",
            "http://127.0.0.1:8080/"
        ));
        assert!(!same_origin(
            "http://127.0.0.1:8081",
            "http://127.0.0.1:8080/"
        ));
        assert!(!same_origin("http://example.org", "https://example.org"));
    }

    #[test]
    fn a_refusal_tells_the_collectors_words() {
        let failure = refusal(
            StatusCode::FORBIDDEN,
            br#"{"title":"not allowed","detail":"role \u001b viewer"}"#,
        );
        assert_eq!(failure.code, Code::Permission);
        assert!(
            failure
                .to_string()
                .contains("not allowed: role \\u{1b} viewer")
        );
    }
}
