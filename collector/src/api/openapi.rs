//! What the API is, as OpenAPI 3.1: from the handlers and the types that they read and answer.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, PathItem, Ref, RefOr, ResponseBuilder, SecurityRequirement};
use utoipa::{Modify, OpenApi};

/// The description of every route below `/api/v1`.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// `GET /api/v1/openapi.json`.
#[utoipa::path(get, path = "/api/v1/openapi.json", operation_id = "openapi_get", tag = "openapi", responses((status = 200, body = Object)))]
pub(super) async fn get() -> axum::Json<utoipa::openapi::OpenApi> {
    axum::Json(description())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pristine",
        description = "Whether each server still is the image it was built from; what differs, since when, who did it, and who approved it. \
            Lists take `limit` (at most 1,000) and `cursor`, and answer `{items, next}`. Errors are RFC 9457 with a stable `code`. \
            Times are RFC 3339 in UTC, to the microsecond; paths and entry lines are in the encoding of mtree(5)."
    ),
    paths(
        super::logins::list,
        super::sign_in::create,
        super::sign_in::end,
        super::logins::get,
        super::sign_in::whoami,
        super::summary::get,
        super::nodes::list,
        super::nodes::get,
        super::nodes::differences,
        super::nodes::approve,
        super::nodes::suspend,
        super::nodes::resume,
        super::nodes::ban,
        super::nodes::decommission,
        super::nodes::rename,
        super::nodes::group,
        super::nodes::rescan,
        super::logins::of_node,
        super::pins::list,
        super::pins::review,
        super::violations::list,
        super::violations::get,
        super::violations::acknowledge,
        super::violations::resolve,
        super::violations::touched,
        super::events::stream,
        super::images::list,
        super::images::publish,
        super::images::get,
        super::images::revoke,
        super::images::differences,
        super::images::put_manifest,
        super::assignments::list,
        super::assignments::request,
        super::assignments::approve,
        super::assignments::refuse,
        super::assignments::withdraw,
        super::changes::list,
        super::changes::get,
        super::changes::nodes,
        super::exceptions::list,
        super::exceptions::request,
        super::exceptions::get,
        super::exceptions::approve,
        super::exceptions::refuse,
        super::exceptions::withdraw,
        super::exceptions::revoke,
        super::tokens::list,
        super::tokens::create,
        super::tokens::revoke,
        super::accounts::own_password,
        super::accounts::list,
        super::accounts::add,
        super::accounts::change,
        super::accounts::password,
        super::accounts::disable,
        super::accounts::enable,
        super::activity::list,
        super::activity::get,
        super::alerts::list,
        super::alerts::retry,
        super::alerts::channels,
        super::alerts::test,
        super::evidence::get,
        get,
    ),
    components(schemas(crate::problem::Body)),
    modifiers(&Everywhere)
)]
struct Description;

/// What holds for every route: how one signs in, and how a refusal looks.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(
            crate::access::sessions::COOKIE_TLS,
        )));
        if let Some(components) = api.components.as_mut() {
            components.add_security_scheme("token", token);
            components.add_security_scheme("session", session);
        }
        let signed_in = ["token", "session"]
            .map(|scheme| SecurityRequirement::new(scheme, Vec::<String>::new()));
        for (path, item) in &mut api.paths.paths {
            for operation in operations(item) {
                let responses = &mut operation.responses.responses;
                responses.insert(
                    "4XX".to_owned(),
                    refusal("The request is refused: `code` says why, `detail` what to do"),
                );
                responses.insert(
                    "503".to_owned(),
                    refusal("The collector cannot do this now"),
                );
                operation.summary = Some(summary(operation));
                let signs_in = path == "/api/v1/sessions" && operation.request_body.is_some();
                if !signs_in {
                    operation.security = Some(signed_in.to_vec());
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut utoipa::openapi::path::Operation> {
    [
        &mut item.get,
        &mut item.post,
        &mut item.put,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

/// What the handler's documentation says after its route; where that is all it says, what its name says.
fn summary(operation: &utoipa::openapi::path::Operation) -> String {
    let said = operation.summary.as_deref().unwrap_or_default();
    let after = said
        .strip_prefix('`')
        .and_then(|said| said.split_once('`'))
        .map_or(said, |(_, after)| after)
        .trim_start_matches([':', '.', ' ']);
    if !after.is_empty() {
        return after.to_owned();
    }
    let id = operation.operation_id.as_deref().unwrap_or_default();
    match id.split_once('_') {
        Some((what, "list")) => format!("the list of {}", what.replace('_', " ")),
        Some((what, "get")) => format!("one of the {}", what.replace('_', " ")),
        Some((what, verb)) => format!("{}: {}", what.replace('_', " "), verb.replace('_', " ")),
        None => id.to_owned(),
    }
}

fn refusal(what: &str) -> RefOr<utoipa::openapi::Response> {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    RefOr::T(
        ResponseBuilder::new()
            .description(what)
            .content("application/problem+json", content)
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::access::roles::ROUTES;

    #[test]
    fn every_route_of_the_api_is_described_and_no_other() {
        let mut api = description();
        let described: BTreeSet<(String, String)> = api
            .paths
            .paths
            .iter_mut()
            .flat_map(|(path, item)| {
                let methods = [
                    ("GET", item.get.is_some()),
                    ("POST", item.post.is_some()),
                    ("PUT", item.put.is_some()),
                    ("PATCH", item.patch.is_some()),
                    ("DELETE", item.delete.is_some()),
                ];
                methods
                    .into_iter()
                    .filter(|(_, there)| *there)
                    .map(|(method, _)| (method.to_owned(), path.clone()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let routes: BTreeSet<(String, String)> = ROUTES
            .iter()
            .filter(|route| route.path.starts_with("/api/"))
            .map(|route| (route.method.to_string(), route.path.to_owned()))
            .collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_operation_says_what_it_does_and_how_it_refuses() {
        let mut api = description();
        for (path, item) in &mut api.paths.paths {
            for operation in operations(item) {
                let summary = operation.summary.as_deref().unwrap_or_default();
                assert!(
                    summary.len() > 4 && !summary.contains("/api/"),
                    "{path}: {summary}"
                );
                assert!(operation.responses.responses.contains_key("4XX"), "{path}");
            }
        }
    }
}
