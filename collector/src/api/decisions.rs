//! What a person says of what another asked for, and how a request is answered: alike for assignments and exceptions.

use http::StatusCode;
use serde::Deserialize;

// A yes; the reason may be left out. (Not a doc comment: that would be a description in the API's document.)
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = Approval)]
pub(super) struct Yes {
    #[serde(default)]
    pub(super) reason: Option<String>,
}

// A no, or a request that is taken back: it says why.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = Refusal)]
pub(super) struct No {
    pub(super) reason: String,
}

/// 201 where what was asked for holds at once, 202 where it waits for another person's word.
pub(super) const fn status(waits: bool) -> StatusCode {
    if waits {
        StatusCode::ACCEPTED
    } else {
        StatusCode::CREATED
    }
}
