//! What the form of a page says. One that is not filled in is refused in our own words, whichever field it is: the pages' own forms ask
//! for all that they need before they are sent.

use axum::extract::{Form, FromRequest, Request};
use serde::de::DeserializeOwned;

use crate::problem::ProblemResponse;

/// A form, filled in.
pub(super) struct Filled<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Filled<T> {
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        Form::<T>::from_request(request, state)
            .await
            .map(|Form(filled)| Self(filled))
            .map_err(|_refused| ProblemResponse::malformed("the form is not filled in"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use axum::body::Body;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Days {
        days: u32,
    }

    async fn asked(body: &'static str) -> Result<u32, ProblemResponse> {
        let request = Request::builder()
            .method("POST")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap();
        let filled = Filled::<Days>::from_request(request, &()).await;
        filled.map(|Filled(said)| said.days)
    }

    #[tokio::test]
    async fn a_form_that_is_not_filled_in_is_refused_whatever_is_wrong_with_it() {
        assert_eq!(asked("days=30").await.unwrap(), 30);
        for bad in ["", "days=", "days=soon", "hours=30"] {
            let refused = asked(bad).await.unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.code), (400, "malformed"));
            assert_eq!(refused.detail, "the form is not filled in", "{bad:?}");
        }
    }
}
