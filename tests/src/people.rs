//! The people's door as a script uses it: a bearer token and JSON.

use std::time::Duration;

use serde_json::Value;

use crate::{RUNTIME, page::Page};

/// A client of the people's door.
#[derive(Debug, Clone)]
pub struct People {
    client: reqwest::Client,
    base: String,
    token: String,
}

/// What the door said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: String,
    /// The body.
    pub body: bytes::Bytes,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl People {
    /// A client of `base` (`http://host:port`) who holds `token`; an empty token sends none.
    pub fn new(base: &str, token: &str) -> Self {
        let client = {
            let _runtime = RUNTIME.enter();
            reqwest::Client::builder()
                .timeout(Duration::from_secs(20))
                .build()
                .expect("a client")
        };
        Self {
            client,
            base: base.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
        }
    }

    /// The same client without a token.
    pub fn stranger(&self) -> Self {
        Self {
            token: String::new(),
            ..self.clone()
        }
    }

    /// The address of this door.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET` that takes an answer of this kind.
    ///
    /// # Panics
    /// Where nobody answers.
    pub fn accepting(&self, path: &str, kind: &str) -> Answer {
        let request = self
            .client
            .get(format!("{}{path}", self.base))
            .header("accept", kind);
        self.answer(request, None).expect("an answer")
    }

    /// Any request; `None` where nobody answers.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.base));
        self.answer(request, body)
    }

    fn answer(&self, mut request: reqwest::RequestBuilder, body: Option<&Value>) -> Option<Answer> {
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        RUNTIME.block_on(async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let kind = response
                .headers()
                .get("content-type")
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default();
            let content_type = kind.to_owned();
            Some(Answer {
                status,
                content_type,
                body: response.bytes().await.ok()?,
            })
        })
    }

    /// `GET` that must succeed.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self
            .ask("GET", path, None)
            .unwrap_or_else(|| panic!("nobody answers {path}"));
        assert_eq!(
            answer.status,
            200,
            "GET {path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    /// `POST` that must succeed.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .ask("POST", path, Some(body))
            .unwrap_or_else(|| panic!("nobody answers {path}"));
        assert!(
            (200..300).contains(&answer.status),
            "POST {path}: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    /// All items of a list, page by page; empty while nobody answers.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        let mark = if path.contains('?') { '&' } else { '?' };
        loop {
            let Some(answer) = self.ask("GET", &format!("{path}{mark}limit=500{cursor}"), None)
            else {
                return items;
            };
            let Value::Object(mut answer) = answer.json() else {
                return items;
            };
            if let Some(Value::Array(page)) = answer.remove("items") {
                items.extend(page);
            }
            match answer.get("next").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// Violations by status: `open`, `resolved` or `all`.
    pub fn violations(&self, status: &str) -> Vec<Value> {
        self.list(&format!("/api/v1/violations?status={status}"))
    }

    /// The open violation of this kind at this path (in its shown form).
    pub fn open(&self, kind: &str, path: &str) -> Option<Value> {
        self.violations("open")
            .into_iter()
            .find(|v| v["kind"] == kind && v["path"] == path)
    }

    /// One violation.
    pub fn violation(&self, id: &str) -> Option<Value> {
        self.ask("GET", &format!("/api/v1/violations/{id}"), None)
            .filter(|a| a.status == 200)
            .map(|a| a.json())
    }

    /// A node as the list has it; `None` while nobody answers or it is not there.
    pub fn node(&self, name_or_id: &str) -> Option<Value> {
        self.list("/api/v1/nodes")
            .into_iter()
            .find(|n| n["name"] == name_or_id || n["id"] == name_or_id)
    }

    /// A page, as somebody signed in gets it.
    #[track_caller]
    pub fn page(&self, path: &str) -> Page {
        let answer = self
            .ask("GET", path, None)
            .unwrap_or_else(|| panic!("nobody answers {path}"));
        Page {
            status: answer.status,
            html: String::from_utf8_lossy(&answer.body).into_owned(),
        }
    }

    /// The value of a counter of `/metrics`, summed over the series whose line contains all of `having`.
    pub fn metric(&self, name: &str, having: &[&str]) -> f64 {
        let answer = self.ask("GET", "/metrics", None).expect("metrics");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && having.iter().all(|part| line.contains(part)));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}
