//! The joining door: TLS without client certificates, for nodes that have none yet or whose certificate is over. Everything is
//! signed by the node's own key; nothing else is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use attestation::wire::{EnrolmentRequest, RenewalRequest, RotationRequest};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::StatusCode;
use tower_http::timeout::TimeoutLayer;

use super::{Peer, read_json_within};
use crate::clock;
use crate::enrolment::{self, Enrolled};
use crate::ingest::{self, Refusal};
use crate::problem::ProblemResponse;
use crate::settings::Limits;
use crate::state::AppState;

/// A request is answered by then, or given up.
const ANSWER: Duration = Duration::from_secs(30);
/// An enrolment is a name and a certificate request, and it is kept as evidence: nobody has let its sender in yet.
const BODY: usize = 64 << 10;
/// Addresses that are counted apart; what comes beyond shares one rate, so that changing addresses fills no memory.
const ADDRESSES: usize = 65_536;

/// The router of the joining door.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/join/v1/enrolment", post(enrol))
        .route("/join/v1/renewal", post(renew))
        .route("/join/v1/rotation", post(rotate))
        .fallback(nothing_here)
        .layer(from_fn_with_state(
            Arc::new(Rates::new(&state)),
            within_rate,
        ))
        .layer(DefaultBodyLimit::disable())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            ANSWER,
        ))
        .with_state(state)
}

/// What each address may ask: who enrols has shown nothing yet but where it comes from.
struct Rates {
    state: AppState,
    rates: DefaultKeyedRateLimiter<IpAddr>,
}

impl Rates {
    fn new(state: &AppState) -> Self {
        Self {
            rates: RateLimiter::keyed(quota(&state.settings.limits)),
            state: state.clone(),
        }
    }

    fn passes(&self, address: IpAddr) -> bool {
        if self.rates.len() >= ADDRESSES {
            self.rates.retain_recent();
        }
        let key = if self.rates.len() >= ADDRESSES {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            site(address)
        };
        self.rates.check_key(&key).is_ok()
    }
}

fn quota(limits: &Limits) -> Quota {
    let of = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(of(limits.joins_per_second)).allow_burst(of(limits.joins_burst))
}

/// What one party can be taken to hold: an IPv4 address, or an IPv6 network of 64 bits.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

async fn within_rate(
    State(rates): State<Arc<Rates>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let address = request
        .extensions()
        .get::<Peer>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
    if rates.passes(address) {
        return next.run(request).await;
    }
    rates.state.metrics.refuse("rate");
    ProblemResponse::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate",
        "too many requests from this address; try again",
    )
    .with_retry_after(5)
    .into_response()
}

async fn enrol(
    State(state): State<AppState>,
    request: Request<Body>,
) -> Result<Response, ProblemResponse> {
    let peer = request.extensions().get::<Peer>();
    let from = peer.map(|peer| peer.address.ip().to_canonical());
    let (request, _) = read_json_within::<EnrolmentRequest>(request, BODY, BODY)
        .await
        .map_err(|error| refuse(&state, error.into()))?;
    match enrolment::enrol(&state, request, from)
        .await
        .map_err(|problem| refuse(&state, problem))?
    {
        Enrolled::Admitted(answer) => Ok((StatusCode::CREATED, Json(*answer)).into_response()),
        Enrolled::Waits(answer) => Ok((StatusCode::ACCEPTED, Json(answer)).into_response()),
    }
}

async fn renew(
    State(state): State<AppState>,
    request: Request<Body>,
) -> Result<Response, ProblemResponse> {
    let (request, _) = read_json_within::<RenewalRequest>(request, BODY, BODY)
        .await
        .map_err(|error| refuse(&state, error.into()))?;
    let answer = enrolment::renew(&state, request)
        .await
        .map_err(|problem| refuse(&state, problem))?;
    Ok(Json(answer).into_response())
}

async fn rotate(
    State(state): State<AppState>,
    request: Request<Body>,
) -> Result<Response, ProblemResponse> {
    let (request, _) = read_json_within::<RotationRequest>(request, BODY, BODY)
        .await
        .map_err(|error| refuse(&state, error.into()))?;
    let answer = enrolment::rotate(&state, request)
        .await
        .map_err(|problem| refuse(&state, problem))?;
    Ok(Json(answer).into_response())
}

async fn nothing_here() -> ProblemResponse {
    ProblemResponse::not_found("nothing is here")
}

fn refuse(state: &AppState, problem: ProblemResponse) -> ProblemResponse {
    if problem.status.is_server_error() {
        state.metrics.refuse(problem.code);
        return problem;
    }
    let refusal = Refusal {
        at: clock::now(),
        door: "joining",
        node: None,
        code: problem.code,
        detail: problem.detail.clone(),
        sample: Vec::new(),
    };
    ingest::note(&state.store, &state.metrics, refusal);
    problem
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_party_and_a_mapped_address_is_its_own() {
        let of = |text: &str| site(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_burst_passes_and_what_is_above_it_does_not() {
        let rates = RateLimiter::keyed(quota(&Limits::default()));
        let passed = (0..200).filter(|_| rates.check_key(&"one").is_ok()).count();
        assert!((50..60).contains(&passed), "{passed}");
        assert!(rates.check_key(&"other").is_ok());
    }
}
