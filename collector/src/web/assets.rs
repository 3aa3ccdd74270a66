//! Style and script, embedded in the program and cached by their digest.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use attestation::digest::Digest;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Files;

static VERSIONS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    Files::iter()
        .filter_map(|name| {
            let file = Files::get(&name)?;
            Some((
                name.to_string(),
                Digest::of(&file.data).to_string()[..12].to_owned(),
            ))
        })
        .collect()
});

/// Where a file is, by its content: another content has another address.
#[must_use]
pub fn href(name: &str) -> String {
    match VERSIONS.get(name) {
        Some(version) => format!("/assets/{name}?v={version}"),
        None => format!("/assets/{name}"),
    }
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// `GET /assets/{file}`.
pub async fn serve(Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let Some(file) = Files::get(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let named = query.as_deref().and_then(|query| query.strip_prefix("v="))
        == VERSIONS.get(&name).map(String::as_str);
    let keep = if named {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut response = file.data.into_owned().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(media_type(&name)),
    );
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn script_and_style_together_stay_under_60_kb_compressed() {
        let mut total = 0;
        for name in Files::iter().filter(|name| name.ends_with(".css") || name.ends_with(".js")) {
            let mut packed =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(&Files::get(&name).unwrap().data).unwrap();
            total += packed.finish().unwrap().len();
        }
        assert!(total < 60_000, "{total}");
    }

    #[test]
    fn a_file_has_its_digest_in_its_address() {
        assert!(href("pristine.css").starts_with("/assets/pristine.css?v="));
    }
}
