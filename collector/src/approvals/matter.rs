//! What people ask for and others decide: how both kinds of requests are kept, and what is answered where there is nothing to decide.

use attestation::time::Timestamp;
use sqlx::AssertSqlSafe;

use crate::access::Person;
use crate::problem::ProblemResponse;
use crate::store::{StoreError, Writing};

/// A kind of request. Both are kept with who decided, when and what they said, in columns of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matter {
    /// That a group be an image.
    Change,
    /// That a difference be accepted.
    Exception,
}

/// What a person said of a request.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// How it stands by it, as it is stored.
    pub state: &'a str,
    /// Who said it.
    pub by: &'a Person,
    /// When.
    pub at: Timestamp,
    /// Why; may be empty.
    pub said: &'a str,
}

impl Matter {
    const fn table(self) -> &'static str {
        match self {
            Self::Change => "deployments",
            Self::Exception => "exceptions",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Exception => "exception",
        }
    }

    /// 404: there is no such request.
    #[must_use]
    pub fn unknown(self) -> ProblemResponse {
        ProblemResponse::not_found(format!("there is no {} with this id", self.word()))
    }

    /// 409: somebody has decided already; `stands` says how.
    #[must_use]
    pub fn not_waiting(self, stands: &str) -> ProblemResponse {
        let detail = format!(
            "this {} is {stands}: there is nothing to decide",
            self.word()
        );
        ProblemResponse::conflict("not-waiting", detail)
    }

    /// Writes a decision down, beside the request that it is about.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn decide(
        self,
        tx: &mut Writing,
        id: &str,
        decision: Decision<'_>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE {} SET state = ?, decided = ?, decided_by = ?, decision = ? WHERE id = ?",
            self.table()
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(decision.state)
            .bind(decision.at.as_micros())
            .bind(&decision.by.user)
            .bind(decision.said)
            .bind(id)
            .execute(&mut tx.connection)
            .await?;
        Ok(())
    }
}
