//! Compares two carriers for pushes of outcomes: Redis's channels and RabbitMQ's direct reply-to. Each is published and
//! received in turns, at the pace of batches; nothing is recorded.

use std::io;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use coupon_core::rabbitmq;
use coupon_core::redis::Redis;
use coupon_core::settings::{AmqpSettings, RedisSettings};
use coupon_core::terminal::print;
use futures_util::{Stream, StreamExt};
use lapin::options::{BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use crate::lab::cpu::CpuTimes;
use crate::output::{Results, row, table};
use crate::statistics::{Latencies, median};

/// The queue through which RabbitMQ replies to the publishing channel: rabbitmq.com/docs/direct-reply-to.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Bytes of the outcome of one claim in a push.
const OUTCOME: usize = 32;

/// A push that takes longer than this is lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Pushes in each turn.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pushes: u32,
    /// Pushes per second.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Outcomes in each push.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    outcomes: u16,
    /// Turns of each carrier; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The cost of a carrier.
#[derive(Debug, Serialize)]
pub struct Carrier {
    name: &'static str,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU time of the server for each push, in microseconds.
    server_us: f64,
}

/// Measures both carriers.
pub async fn run(redis: &RedisSettings, amqp: &AmqpSettings, arguments: &Arguments) -> anyhow::Result<Vec<Carrier>> {
    let (mut by_redis, mut by_rabbitmq) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        by_redis.push(through_redis(redis, arguments).await.with_context(|| redis.redis_url.to_string())?);
        by_rabbitmq.push(through_rabbitmq(amqp, arguments).await.with_context(|| amqp.amqp_url.to_string())?);
    }
    Ok(vec![Carrier::of("Redis PUBLISH", &by_redis), Carrier::of("RabbitMQ direct reply-to", &by_rabbitmq)])
}

async fn through_redis(settings: &RedisSettings, arguments: &Arguments) -> anyhow::Result<Turn> {
    let redis = Redis::new(settings)?;
    let channel = format!("bench-{}", Uuid::new_v4());
    let heard = redis.subscribe(&channel).await?;
    measure("redis-server", arguments, heard, async |push| Ok(redis.publish(&channel, &push).await?)).await
}

async fn through_rabbitmq(settings: &AmqpSettings, arguments: &Arguments) -> anyhow::Result<Turn> {
    let connections = [rabbitmq::connect(settings, "hears").await?, rabbitmq::connect(settings, "pushes").await?];
    let [subscriber, publisher] = [connections[0].create_channel().await?, connections[1].create_channel().await?];
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let heard = subscriber.basic_consume(REPLY_TO.into(), "".into(), no_ack, FieldTable::default()).await?;
    let heard = heard.filter_map(async |delivery| Some(delivery.ok()?.data));
    let address = address_of(&subscriber, &publisher).await?;
    measure("beam.smp", arguments, heard, async |push| {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        publisher.basic_publish("".into(), address.clone(), options, &push, properties).await?;
        Ok(())
    })
    .await
}

/// Finds the reply address that RabbitMQ gave the subscriber, which only a message from the subscriber reveals.
async fn address_of(subscriber: &Channel, publisher: &Channel) -> anyhow::Result<ShortString> {
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = publisher.queue_declare("".into(), options, FieldTable::default()).await?.name().clone();
    let properties = BasicProperties::default().with_reply_to(REPLY_TO.into());
    subscriber.basic_publish("".into(), queue.clone(), BasicPublishOptions::default(), b"", properties).await?;
    let end = Instant::now() + LOST_AFTER;
    loop {
        if let Some(message) = publisher.basic_get(queue.clone(), BasicGetOptions { no_ack: true }).await? {
            return message.properties.reply_to().clone().context("no address to reply to");
        }
        ensure!(Instant::now() < end, "no message arrives");
    }
}

/// The figures of one turn.
struct Turn {
    latencies: Latencies,
    server_us: f64,
}

/// Sends pushes at the given rate and times their arrival.
async fn measure(
    server: &str,
    arguments: &Arguments,
    heard: impl Stream<Item = Vec<u8>>,
    send: impl AsyncFn(Vec<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<Turn> {
    let mut heard = pin!(heard);
    let mut latencies = Latencies::new()?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / arguments.rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let before = CpuTimes::of([], &[(server, server)]);
    for n in 0..arguments.pushes {
        pace.tick().await;
        let mut push = vec![0; OUTCOME * usize::from(arguments.outcomes)];
        push.iter_mut().zip(n.to_be_bytes()).for_each(|(to, byte)| *to = byte);
        let sent_at = Instant::now();
        // Listening starts before the publish returns, because the push may arrive first.
        let next = tokio::time::timeout(LOST_AFTER, heard.next());
        let (published, arrived) = tokio::join!(send(push.clone()), next);
        published?;
        ensure!(arrived.context("a push was lost")?.as_ref() == Some(&push), "another push arrived");
        latencies.record(sent_at.elapsed());
    }
    let server_us: f64 = CpuTimes::of([], &[(server, server)]).since(&before).values().map(Duration::as_secs_f64).sum();
    Ok(Turn { latencies, server_us: server_us * 1e6 / f64::from(arguments.pushes) })
}

impl Carrier {
    fn of(name: &'static str, turns: &[Turn]) -> Self {
        let median = |figure: fn(&Turn) -> f64| median(turns.iter().map(figure));
        Self {
            name,
            p50_ms: median(|turn| turn.latencies.quantile_ms(0.5)),
            p99_ms: median(|turn| turn.latencies.quantile_ms(0.99)),
            server_us: median(|turn| turn.server_us),
        }
    }
}

impl Results for Vec<Carrier> {
    fn print(&self) -> io::Result<()> {
        let mut table = table(["carrier", "p50 ms", "p99 ms", "server µs"]);
        for Carrier { name, p50_ms, p99_ms, server_us } in self {
            table.add_row(row(name, [format!("{p50_ms:.2}"), format!("{p99_ms:.2}"), format!("{server_us:.0}")]));
        }
        print(&table)
    }

    fn is_clean(&self) -> bool {
        true
    }
}
