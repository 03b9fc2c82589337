//! Campaign state in the memory of an API: whether a campaign exists, is open or is sold out, and who has won.
//!
//! A claim reads this state without waiting; one task re-reads all campaigns in use every half second, up to
//! `CAMPAIGNS_PER_STATEMENT` in one statement. Invariants: "sold out" here was true in committed state at most
//! `SOLD_OUT_MAX_AGE` ago, and the winners kept with it include everyone who had a coupon then, so that a winner who
//! claims again never gets a 409. (The exception is the second after a restock: an instance that has not seen it yet
//! does not know who has won through another instance.)

mod stocks;
mod winners;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use time::OffsetDateTime;
use tokio::sync::{Mutex, Notify, watch};

use self::winners::{WINNERS_AT_ONCE, Winners};
use crate::domain::{AccountId, Campaign, CampaignId, Window};
use crate::error::{Error, Result};
use crate::mysql::campaigns::{CampaignWithStock, Counts};
use crate::mysql::{self, Mysql};

/// How often the state of campaigns in use is read again.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// A notice of a change brings the next read forward to this interval, so that many notices don't cause many reads.
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_millis(25);

/// How long a caller waits for a read, which takes milliseconds. Callers that wait for one ask again later anyway.
const READ_AGAIN_DEADLINE: Duration = Duration::from_millis(100);

/// A restock must be seen within about a second, so an older "sold out" is not passed on.
const SOLD_OUT_MAX_AGE: Duration = Duration::from_millis(1500);

/// While MySQL is away, campaigns known to be open stay so for this long: producer-api goes on accepting claims.
const OPEN_MAX_AGE: Duration = Duration::from_mins(1);

/// A campaign that nobody asks for is forgotten after this.
const FORGET_AFTER: Duration = Duration::from_secs(10);

/// The most campaigns kept in memory, nonexistent ones included, because clients may try numbers.
const CAMPAIGNS_MAX: u64 = 10_000;

/// The most campaigns read in one statement.
pub(super) const CAMPAIGNS_PER_STATEMENT: usize = 500;

/// What to do with a claim, judged from memory alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Let it in.
    Open,
    /// There is no such campaign.
    Unknown,
    /// The campaign opens later.
    NotOpen,
    /// The campaign is over.
    Closed,
    /// The campaign would be open, but an operator has paused it.
    Paused,
    /// No coupon is free and this account has none.
    SoldOut,
    /// No coupon is free, but this account may have one: look it up.
    MayHaveWon,
}

/// What is known about a campaign.
#[derive(Debug)]
pub struct State {
    /// The campaign, if there is one.
    pub campaign: Option<Campaign>,
    winners: Option<Arc<Winners>>,
    read_at: Instant,
}

impl State {
    /// What to do with a claim of this account.
    #[must_use]
    pub fn admit(&self, account: AccountId, now: OffsetDateTime) -> Admission {
        let Some(campaign) = &self.campaign else { return Admission::Unknown };
        match (campaign.window(now), &self.winners) {
            (Window::NotOpen, _) => Admission::NotOpen,
            (Window::Closed, _) => Admission::Closed,
            (Window::Open, _) if campaign.paused => Admission::Paused,
            (Window::Open, None) => Admission::Open,
            (Window::Open, Some(winners)) if winners.may_contain(account) => Admission::MayHaveWon,
            (Window::Open, Some(_)) => Admission::SoldOut,
        }
    }

    /// Whether no coupon is free.
    #[must_use]
    pub fn is_sold_out(&self) -> bool {
        self.winners.is_some()
    }

    /// Whether this account certainly has no coupon, and none is free.
    #[must_use]
    pub fn is_sold_out_for(&self, account: AccountId) -> bool {
        self.winners.as_ref().is_some_and(|winners| !winners.may_contain(account))
    }

    fn max_age(&self) -> Duration {
        if self.is_sold_out() { SOLD_OUT_MAX_AGE } else { OPEN_MAX_AGE }
    }
}

/// The campaigns in use. Cheap to clone.
#[derive(Clone)]
pub struct Campaigns {
    inner: Arc<Inner>,
}

/// How many reads of all campaigns in use have begun, and how many of these are done.
#[derive(Default)]
struct Reads {
    begun: u64,
    done: u64,
}

struct Inner {
    mysql: Mysql,
    states: moka::future::Cache<CampaignId, Arc<Entry>>,
    counts: moka::future::Cache<CampaignId, Counts>,
    changed: Notify,
    reads: watch::Sender<Reads>,
    /// Held while stocks are counted.
    counting: Mutex<()>,
}

impl Campaigns {
    /// Starts the task that keeps campaigns up to date; it ends when the last clone is dropped.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn start(mysql: Mysql) -> Self {
        let inner = Arc::new(Inner {
            mysql,
            states: moka::future::Cache::builder().max_capacity(CAMPAIGNS_MAX).time_to_idle(FORGET_AFTER).build(),
            counts: moka::future::Cache::builder()
                .max_capacity(CAMPAIGNS_MAX)
                .time_to_live(Duration::from_secs(1))
                .build(),
            changed: Notify::new(),
            reads: watch::Sender::default(),
            counting: Mutex::default(),
        });
        tokio::spawn(keep_fresh(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// The state of a campaign: from memory, or from MySQL when it is asked for the first time.
    ///
    /// # Errors
    /// Any error from MySQL when the campaign is first read, or [`Error::Deadline`] when its state is too old to be
    /// used.
    pub async fn state(&self, campaign: CampaignId) -> Result<Arc<State>> {
        let entry = match self.inner.states.get(&campaign).await {
            Some(entry) => entry,
            // Boxed: it is rare, and would make the future of each request some kilobytes larger.
            None => Box::pin(self.read_first(campaign)).await?,
        };
        let state = current(&entry);
        if state.read_at.elapsed() > state.max_age() {
            return Err(Error::Deadline { what: "reading the campaign again", limit: state.max_age() });
        }
        Ok(state)
    }

    /// Reads a campaign once for all callers that ask for it at the same time.
    async fn read_first(&self, campaign: CampaignId) -> Result<Arc<Entry>> {
        let inner = &self.inner;
        let read = async {
            let state = inner.read(vec![(campaign, None)]).await?.pop();
            let state = state.ok_or_else(|| Error::Broken(String::from("a campaign was not read")))?;
            Ok::<_, Error>(Arc::new(Entry::new(Arc::new(state))))
        };
        inner.states.try_get_with(campaign, read).await.map_err(|error: Arc<Error>| shared(&error))
    }

    /// The state of a campaign if it is in memory and not too old, whichever caller caused it to be read.
    pub async fn known(&self, campaign: CampaignId) -> Option<Arc<State>> {
        let entry = self.inner.states.get(&campaign).await?;
        let state = current(&entry);
        (state.read_at.elapsed() <= state.max_age()).then_some(state)
    }

    /// The coupons of a campaign in this state, counted at most a second ago unless it is sold out.
    ///
    /// # Errors
    /// Any error from MySQL.
    pub async fn count(&self, campaign: &Campaign, state: &State) -> Result<Counts> {
        if state.is_sold_out() {
            return Ok(Counts { coupons: campaign.coupons, free: 0 });
        }
        let (id, mysql) = (campaign.id, &self.inner.mysql);
        let count = mysql.run(async move |mut conn: Conn| mysql::campaigns::count(&mut conn, id).await);
        self.inner.counts.try_get_with(id, count).await.map_err(|error: Arc<Error>| shared(&error))
    }

    /// Reports that a campaign's state has changed, for instance because a claim found no coupon: it is read again at
    /// once.
    pub fn notice_change(&self) {
        self.inner.changed.notify_one();
    }

    /// Has campaigns read again at once, and waits for that for at most `READ_AGAIN_DEADLINE`. A read that is under way
    /// does not count: it may have begun before the change.
    pub async fn read_again(&self) {
        let mut reads = self.inner.reads.subscribe();
        let next = reads.borrow().begun + 1;
        self.notice_change();
        let read = reads.wait_for(|reads| reads.done >= next);
        let _ = tokio::time::timeout(READ_AGAIN_DEADLINE, read).await;
    }
}

/// A campaign's place in memory: readers take the state that is there, and the refresh replaces it.
type Entry = RwLock<Arc<State>>;

fn current(entry: &Entry) -> Arc<State> {
    Arc::clone(&entry.read().unwrap_or_else(PoisonError::into_inner))
}

fn replace(entry: &Entry, state: State) {
    *entry.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
}

/// Shares the failure of one read among the callers that waited for it.
fn shared(error: &Error) -> Error {
    if error.is_retryable() {
        tracing::debug!(%error, "cannot read a campaign");
    }
    error.shared()
}

async fn keep_fresh(inner: std::sync::Weak<Inner>) {
    loop {
        let began = Instant::now();
        let Some(inner) = inner.upgrade() else { return };
        inner.reads.send_modify(|reads| reads.begun += 1);
        inner.refresh().await;
        inner.reads.send_modify(|reads| reads.done = reads.begun);
        let changed = async {
            inner.changed.notified().await;
            tokio::time::sleep(REFRESH_AT_MOST_EVERY.saturating_sub(began.elapsed())).await;
        };
        // The timer runs alongside the notice, not only after it: once the last user is dropped, no notice comes.
        let _ = tokio::time::timeout(REFRESH_EVERY.saturating_sub(began.elapsed()), changed).await;
    }
}

impl Inner {
    /// Reads all campaigns in use again. Those that can't be read keep their old state until it is too old.
    async fn refresh(&self) {
        // Iterating does not count as use, so a campaign that nobody asks for is still forgotten.
        let entries: Vec<(CampaignId, Arc<Entry>)> = self.states.iter().map(|(id, entry)| (*id, entry)).collect();
        for entries in entries.chunks(CAMPAIGNS_PER_STATEMENT) {
            let asked = entries.iter().map(|(id, entry)| (*id, current(entry).winners.clone())).collect();
            match self.read(asked).await {
                Ok(states) => entries.iter().zip(states).for_each(|((_, entry), state)| replace(entry, state)),
                Err(error) => tracing::debug!(%error, "cannot read campaigns again"),
            }
        }
    }

    /// Reads campaigns, given the winners known so far, and returns their states in the same order.
    async fn read(&self, asked: Vec<(CampaignId, Option<Arc<Winners>>)>) -> Result<Vec<State>> {
        let read_at = Instant::now();
        let ids: Vec<CampaignId> = asked.iter().map(|(id, _)| *id).collect();
        let found = self.mysql.run(async move |mut conn: Conn| mysql::campaigns::with_stock(&mut conn, &ids).await);
        let mut found: HashMap<CampaignId, CampaignWithStock> =
            found.await?.into_iter().map(|found| (found.campaign.id, found)).collect();

        let mut states = Vec::with_capacity(asked.len());
        for (id, known) in asked {
            let (campaign, winners) = match found.remove(&id) {
                None => (None, None),
                Some(CampaignWithStock { campaign, free: true }) => (Some(campaign), None),
                Some(CampaignWithStock { campaign, free: false }) => {
                    let winners = self.winners(&campaign, known).await;
                    // Without its winners the campaign counts as open, and each claim finds out for itself that it is
                    // sold out.
                    let winners = winners.inspect_err(|error| tracing::debug!(%error, "cannot read the winners")).ok();
                    (Some(campaign), winners)
                }
            };
            states.push(State { campaign, winners, read_at });
        }
        Ok(states)
    }

    /// The winners of a campaign that was just seen to be sold out. The known ones are complete as long as its stock is
    /// the same: nobody can have won since.
    async fn winners(&self, campaign: &Campaign, known: Option<Arc<Winners>>) -> Result<Arc<Winners>> {
        if let Some(known) = known.filter(|known| known.coupons == campaign.coupons) {
            return Ok(known);
        }
        let id = campaign.id;
        let mut winners = Winners::of_stock(campaign.coupons);
        let read = async move |mut conn: Conn| loop {
            let accounts = mysql::campaigns::winners(&mut conn, id, winners.last(), WINNERS_AT_ONCE).await?;
            winners.add(&accounts)?;
            if accounts.len() < WINNERS_AT_ONCE {
                return Ok(Arc::new(winners));
            }
        };
        self.mysql.run(read).await
    }
}
