//! The ways to take a row, chosen by a setting so that they can be compared.
//!
//! Invariant: under any strategy a claim belongs to one group (of one claim or many) and leaves one span with that
//! group's steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::ValueEnum;
use coupon_core::mysql::Mysql;
use coupon_core::telemetry::attribute::{CAMPAIGN_ID, GROUP_SIZE, GROUP_WAIT, STRATEGY};
use coupon_core::telemetry::{metrics, span};
use coupon_core::{CampaignId, ClaimKey, Error, Result};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanBuilder;

use crate::coalesced::Groups;
use crate::group::{Claimed, Group};
use crate::select_update::{self, RowSearch};
use crate::settings::{Settings, StrategyName};
use crate::single_statement::{self, Locking};

/// The strategy in use. Cheap to clone.
#[derive(Clone)]
pub struct Strategy {
    name: StrategyName,
    mysql: Mysql,
    engine: Engine,
    /// The campaign whose claim was last refused for a lasting reason, until a check finds that the reason is gone.
    refused: Arc<Mutex<Option<CampaignId>>>,
}

#[derive(Clone)]
enum Engine {
    Transaction(RowSearch),
    SingleStatement(Locking),
    Coalesced(Groups),
}

impl Strategy {
    /// Starts the strategy that the settings name, on the current runtime.
    pub fn start(settings: &Settings, mysql: &Mysql) -> Self {
        if settings.has_unread_groups() {
            tracing::warn!("CLAIM_GROUPS and GROUP_MAX have no effect: only the strategy coalesced uses them");
        }
        let groups = || Groups::start(mysql, usize::from(settings.groups), usize::from(settings.group_max));
        let engine = match settings.strategy {
            StrategyName::SelectUpdate => Engine::Transaction(RowSearch::First),
            StrategyName::Scattered => Engine::Transaction(RowSearch::RandomStart),
            StrategyName::ForUpdate => Engine::Transaction(RowSearch::Blocking),
            StrategyName::SingleStatement => Engine::SingleStatement(Locking::Skip),
            StrategyName::BlindUpdate => Engine::SingleStatement(Locking::Wait),
            StrategyName::Coalesced => Engine::Coalesced(groups()),
        };
        Self { name: settings.strategy, mysql: mysql.clone(), engine, refused: Arc::default() }
    }

    /// Takes a coupon for an account.
    ///
    /// # Errors
    /// An error of MySQL, or too many claims wait already.
    pub async fn claim(&self, claim: ClaimKey) -> Result<Claimed> {
        let _in_flight = metrics::InFlight::claims(1);
        let context = span::start_child(|| self.span(claim));
        let arrived_at = Instant::now();
        let is_recorded = span::is_recorded(&context);
        let alone = || Group::new(1, is_recorded);
        let (claimed, group) = match &self.engine {
            Engine::Coalesced(groups) => groups.claim(claim, is_recorded).await,
            Engine::Transaction(search) => {
                let group = alone();
                (select_update::claim(&self.mysql, claim, *search, &group).await, Some(group))
            }
            Engine::SingleStatement(locking) => {
                let group = alone();
                (single_statement::claim(&self.mysql, claim, *locking, &group).await, Some(group))
            }
        };
        if let Some(group) = group.filter(|_| is_recorded) {
            span::note(&context, GROUP_SIZE, span::count(group.size));
            span::note(&context, GROUP_WAIT, group.taken_at.duration_since(arrived_at).as_secs_f64());
            group.timeline.draw(&context);
        }
        span::end(&context, &claimed);
        if claimed.as_ref().is_err_and(Error::stays) {
            *self.refused() = Some(claim.campaign_id);
        }
        claimed
    }

    /// Whether MySQL issues coupons. Once it has refused a claim for a reason that somebody must fix, this tries again:
    /// a service that is not ready may get no claims that would show that the reason is gone.
    ///
    /// # Errors
    /// The reason why it does not.
    pub async fn check(self) -> Result<()> {
        self.mysql.can_issue().await?;
        let refused = *self.refused();
        if let Some(campaign) = refused {
            self.mysql.would_issue(campaign).await?;
            *self.refused() = None;
        }
        Ok(())
    }

    fn refused(&self) -> MutexGuard<'_, Option<CampaignId>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self, claim: ClaimKey) -> SpanBuilder {
        let name = self.name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        SpanBuilder::from_name("claim")
            .with_attributes([KeyValue::new(STRATEGY, name), KeyValue::new(CAMPAIGN_ID, claim.campaign_id)])
    }
}
