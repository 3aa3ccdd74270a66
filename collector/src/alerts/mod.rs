//! Telling people: what the outbox holds is delivered to every channel until it is accepted or visibly given up on.
//!
//! A row enters the outbox in the transaction that records the violation's step, so nothing is told that is not stored and nothing
//! stored goes untold. The step's id is the delivery's id: a second delivery has the same one, and the receiver can drop it.

mod event;
mod listing;
mod outbox;
mod signature;

pub use self::event::event_body;
pub use self::listing::{Delivery, deliveries};
pub use self::outbox::run;
pub use self::signature::{SecretError, SigningSecret};
