//! How violations end: each by one of these words, beside the sentence that says it for this one.

use serde::{Deserialize, Serialize};

/// How a violation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// It is as expected again.
    Reverted,
    /// Another image has it so, and the node is that image or becomes it.
    RolledOut,
    /// The difference stands and was accepted until an end.
    Excepted,
    /// A person says that nothing was wrong.
    FalseAlarm,
    /// What was found became the node's pin.
    Accepted,
    /// A person has looked at it.
    Reviewed,
    /// A rescan closed the gap.
    Closed,
    /// The node speaks again.
    Heard,
    /// The node keeps within its budget again.
    Calmed,
    /// The differences give the tree again.
    Explained,
    /// The node is an allowed image again.
    Allowed,
    /// The node is no longer part of the fleet.
    Retired,
}

impl Resolution {
    /// All of them, for filters and tests.
    pub const ALL: [Self; 12] = [
        Self::Reverted,
        Self::RolledOut,
        Self::Excepted,
        Self::FalseAlarm,
        Self::Accepted,
        Self::Reviewed,
        Self::Closed,
        Self::Heard,
        Self::Calmed,
        Self::Explained,
        Self::Allowed,
        Self::Retired,
    ];

    /// As in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reverted => "reverted",
            Self::RolledOut => "rolled-out",
            Self::Excepted => "excepted",
            Self::FalseAlarm => "false-alarm",
            Self::Accepted => "accepted",
            Self::Reviewed => "reviewed",
            Self::Closed => "closed",
            Self::Heard => "heard",
            Self::Calmed => "calmed",
            Self::Explained => "explained",
            Self::Allowed => "allowed",
            Self::Retired => "retired",
        }
    }

    /// The one that is written so, if any.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|resolution| resolution.as_str() == text)
    }

    /// For pages: the words beside `resolved`.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Reverted => "reverted",
            Self::RolledOut => "rolled out",
            Self::Excepted => "excepted",
            Self::FalseAlarm => "false alarm",
            Self::Accepted => "accepted as the pin",
            Self::Reviewed => "reviewed",
            Self::Closed => "closed by a rescan",
            Self::Heard => "heard again",
            Self::Calmed => "within its budget again",
            Self::Explained => "explained again",
            Self::Allowed => "an allowed image again",
            Self::Retired => "node retired",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_store_json_and_filters_write_a_resolution_the_same() {
        for resolution in Resolution::ALL {
            assert_eq!(Resolution::parse(resolution.as_str()), Some(resolution));
            let json = serde_json::to_value(resolution).unwrap();
            assert_eq!(json, resolution.as_str());
        }
        assert_eq!(Resolution::parse("Reverted"), None);
    }
}
