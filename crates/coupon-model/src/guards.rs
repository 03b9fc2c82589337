//! The guards of the protocol. Running the model without a guard shows what that guard prevents.
//!
//! Invariant: leaving one out changes one decision or statement and nothing else. The tests in `tests/it` show the
//! consequences.

use std::fmt;
use std::str::FromStr;

/// One precaution of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// Each UPDATE has `account_id IS NULL`.
    ConditionalUpdate,
    /// The unique key of campaign and account.
    UniqueKey,
    /// A message is acknowledged only once its claims have their outcome, not when it is taken.
    AckAfterOutcome,
    /// Only a read from the beginning proves "sold out", not one that resumes after the ids of the previous refill.
    ReadFromTheBeginning,
    /// The proof of "sold out" comes before the lookup of what the account holds.
    ProofBeforeLookup,
    /// A proof that a consumer remembers counts only for claims accepted before it.
    ProofAfterClaim,
    /// The proof of "sold out" is read from the server that takes the writes, not from a lagging replica.
    ReadFromThePrimary,
    /// Reserved ids are given back only if no id of the round was stale.
    GiveBackWhenCertain,
    /// A list that yields stale ids round after round is dropped.
    DropStaleLists,
    /// Only one consumer refills a list at a time, under a lock that expires.
    RefillLock,
    /// The lock is freed only by the consumer that holds it.
    CompareBeforeUnlock,
    /// A refill resumes after the ids of the previous one, which may be in flight.
    ResumeAfterTheLast,
    /// An empty result with SKIP LOCKED does not prove "sold out": committed rows are read.
    ReadCommittedRows,
    /// 201 is sent after the commit.
    AnswerAfterCommit,
    /// Coupon holders are read after the campaign was seen sold out.
    HoldersAfterSellOut,
    /// A "sold out" from memory has an age limit.
    AgeLimit,
    /// A recorded `sold_out` only prompts a read of the campaign.
    RecordIsAHint,
}

impl Guard {
    /// The guards of the queue way.
    pub const OF_QUEUE: [Self; 12] = [
        Self::ConditionalUpdate,
        Self::UniqueKey,
        Self::AckAfterOutcome,
        Self::ReadFromTheBeginning,
        Self::ProofBeforeLookup,
        Self::ProofAfterClaim,
        Self::ReadFromThePrimary,
        Self::GiveBackWhenCertain,
        Self::DropStaleLists,
        Self::RefillLock,
        Self::CompareBeforeUnlock,
        Self::ResumeAfterTheLast,
    ];

    /// The guards of the skiplock way.
    pub const OF_SKIPLOCK: [Self; 5] = [
        Self::ConditionalUpdate,
        Self::UniqueKey,
        Self::ReadCommittedRows,
        Self::ProofBeforeLookup,
        Self::AnswerAfterCommit,
    ];

    /// The guards of an API's answers.
    pub const OF_ANSWERS: [Self; 5] = [
        Self::HoldersAfterSellOut,
        Self::ProofBeforeLookup,
        Self::AgeLimit,
        Self::RecordIsAHint,
        Self::ReadFromThePrimary,
    ];

    /// All guards, by the names that commands use.
    pub const ALL: [(&'static str, Self); 17] = [
        ("conditional-update", Self::ConditionalUpdate),
        ("unique-key", Self::UniqueKey),
        ("ack-after-outcome", Self::AckAfterOutcome),
        ("read-from-the-beginning", Self::ReadFromTheBeginning),
        ("proof-before-lookup", Self::ProofBeforeLookup),
        ("proof-after-claim", Self::ProofAfterClaim),
        ("read-from-the-primary", Self::ReadFromThePrimary),
        ("give-back-when-certain", Self::GiveBackWhenCertain),
        ("drop-stale-lists", Self::DropStaleLists),
        ("refill-lock", Self::RefillLock),
        ("compare-before-unlock", Self::CompareBeforeUnlock),
        ("resume-after-the-last", Self::ResumeAfterTheLast),
        ("read-committed-rows", Self::ReadCommittedRows),
        ("answer-after-commit", Self::AnswerAfterCommit),
        ("holders-after-sell-out", Self::HoldersAfterSellOut),
        ("age-limit", Self::AgeLimit),
        ("record-is-a-hint", Self::RecordIsAHint),
    ];
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::ALL.iter().find(|(_, guard)| guard == self).map_or(Ok(()), |(name, _)| f.write_str(name))
    }
}

impl FromStr for Guard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.map(|(name, _)| name).join(", ");
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, guard)| *guard);
        found.ok_or_else(|| format!("must be one of {}", names()))
    }
}
