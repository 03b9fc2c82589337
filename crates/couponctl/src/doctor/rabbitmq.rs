//! RabbitMQ: whether the queues are as the services declare them, and whether claims get in and out.

use coupon_core::Error;
use coupon_core::rabbitmq::{self, Counts, Policies, Queues, counts};
use coupon_core::settings::AmqpSettings;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Confirmation, Connection, ErrorKind};

use super::Program;
use super::sheet::Sheet;
use crate::servers::Servers;

/// The broker's code for a missing right.
const ACCESS_REFUSED: u16 = 403;

pub async fn check(sheet: &mut Sheet, servers: &Servers, programs: &[Program]) -> anyhow::Result<()> {
    let programs: Vec<Program> = programs.iter().copied().filter(|program| *program != Program::SkiplockApi).collect();
    if programs.is_empty() {
        return Ok(());
    }
    let (settings, namespace) = (&servers.amqp, &servers.namespace.namespace);
    let connection = match rabbitmq::connect(settings, "couponctl doctor").await {
        Ok(connection) => connection,
        Err(error) => {
            sheet.not_reached("reachable", &format!("{}: {error}", settings.amqp_url), error.remedy());
            return Ok(());
        }
    };
    sheet.ok("reachable", &format!("{} as {}", settings.amqp_url, connection.status().username()));
    version(sheet, settings).await;
    let queues = Queues::new(namespace, settings);
    let publishing = publishes(&connection, settings, &queues).await?;
    let are_there = queues_are_sound(sheet, &connection, &queues).await?;
    policies(sheet, settings, &queues).await;
    for program in programs {
        rights(sheet, &connection, program, &queues, &publishing, are_there).await?;
    }
    if connection.status().blocked() {
        let remedy = "free memory or disk on its machine, or raise vm_memory_high_watermark or lower disk_free_limit: until \
                      then claims get 503";
        sheet.wrong("takes messages", "it blocks publishers: an alarm of memory or disk", remedy);
    } else {
        sheet.ok("takes messages", "it does not block publishers");
    }
    let _ = connection.close(200, "done".into()).await;
    Ok(())
}

async fn version(sheet: &mut Sheet, settings: &AmqpSettings) {
    match rabbitmq::version(settings).await {
        Ok(Some(version)) if is_recent(&version) => sheet.ok("version", &version),
        Ok(Some(version)) => {
            sheet.wrong(
                "version",
                &version,
                "RabbitMQ 3.10 is the first whose dead letters are delivered at least once",
            );
        }
        Ok(None) => sheet.warning("version", "it does not say", "RabbitMQ 3.10 or later is needed"),
        Err(error) => sheet.not_checked("version", &error),
    }
}

/// Whether a version is the least one that is needed or a later one.
fn is_recent(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (3, 10)
}

/// Checks whether both queues exist, how they were declared, and how many dead letters wait. Returns whether they
/// exist.
async fn queues_are_sound(sheet: &mut Sheet, connection: &Connection, queues: &Queues) -> anyhow::Result<bool> {
    let claims = counts(connection, &queues.claims).await?;
    let dead = counts(connection, &queues.dead).await?;
    let (Some(waiting), Some(dead)) = (claims, dead) else {
        let missing: Vec<&str> = [(&queues.claims, claims), (&queues.dead, dead)]
            .iter()
            .filter(|(_, counts)| counts.is_none())
            .map(|(queue, _)| queue.as_str())
            .collect();
        let remedy = "start producer-api or queue-consumer, which make them; then run this again";
        sheet.warning("queues", &format!("{} not there (or not for this user to see)", missing.join(" and ")), remedy);
        return Ok(false);
    };
    // This creates nothing, because the queues exist. The broker refuses a declaration that differs.
    match queues.declare(connection).await {
        Ok(()) => sheet.ok("queues", "as the services make them"),
        Err(Error::Unsafe(words)) => {
            let (found, remedy) = words.split_once("): ").unwrap_or((&words, ""));
            sheet.wrong("queues", found, remedy);
        }
        // A missing right is reported on a line of its own.
        Err(error) if error.is_access_refused() => {}
        Err(error) => return Err(error.into()),
    }
    consumers(sheet, waiting);
    if dead.messages == 0 {
        sheet.ok("dead letters", "none");
    } else {
        let remedy = "`couponctl dead list` says why nobody could handle them; `couponctl dead replay` puts claims back \
                      when the cause is gone";
        sheet.warning("dead letters", &format!("{} messages wait in {}", dead.messages, queues.dead), remedy);
    }
    Ok(true)
}

/// Checks that waiting messages have a consumer.
fn consumers(sheet: &mut Sheet, Counts { messages, consumers }: Counts) {
    let found = format!("{consumers} consume, {messages} messages wait");
    if messages > 0 && consumers == 0 {
        let remedy = "start queue-consumer; one that runs and stands aside says why in its log and in /readyz, as when its \
                      database is another than the producers'";
        sheet.warning("consumers", &found, remedy);
    } else {
        sheet.ok("consumers", &found);
    }
}

/// Policies change queues from outside. The broker reports them only through its HTTP API.
async fn policies(sheet: &mut Sheet, settings: &AmqpSettings, queues: &Queues) {
    if settings.amqp_management_url.reveal().is_empty() {
        let vhost = settings.amqp_url.vhost();
        let remedy = format!(
            "name RabbitMQ's HTTP API in COUPON_AMQP_MANAGEMENT_URL, or check them yourself with `rabbitmqctl \
             list_policies -p {vhost}` and `rabbitmqctl list_operator_policies -p {vhost}`: message-ttl, expires and \
             overflow lose claims"
        );
        return sheet.warning("policies", "not queried: COUPON_AMQP_MANAGEMENT_URL is empty", &remedy);
    }
    let dangers = match Policies::new(settings) {
        Ok(policies) => policies.dangers(queues).await,
        Err(error) => Err(error),
    };
    match dangers {
        Ok(dangers) if dangers.is_empty() => sheet.ok("policies", "none by which accepted claims are lost"),
        Ok(dangers) => {
            let all: Vec<String> = dangers.iter().map(ToString::to_string).collect();
            let text = all.join("; ");
            let (found, remedy) = text.split_once(": ").unwrap_or((&text, ""));
            sheet.wrong("policies", found, remedy);
        }
        Err(error) => sheet.not_reached("policies", &error, error.remedy()),
    }
}

/// Publishes a message to the default exchange that goes to no queue: if the right is missing, the broker closes the
/// channel.
async fn publishes(connection: &Connection, settings: &AmqpSettings, queues: &Queues) -> anyhow::Result<Right> {
    let channel = connection.create_channel().await?;
    let publish = async {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let nowhere: ShortString = format!("{}.nowhere", queues.claims).into();
        channel.basic_publish("".into(), nowhere, options, b"", BasicProperties::default()).await?.await
    };
    match tokio::time::timeout(settings.amqp_deadline, publish).await {
        Ok(Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(_))) => Ok(Right::Had),
        Ok(Ok(other)) => Ok(Right::Unknown(format!("a message to nowhere was not returned: {other:?}"))),
        Ok(Err(error)) => right(&error).map_err(Into::into),
        Err(_) => Ok(Right::Unknown(format!("no confirm in {:?}", settings.amqp_deadline))),
    }
}

/// Whether the broker grants a user a right.
enum Right {
    Had,
    /// The broker's words for the missing right.
    Missing(String),
    /// The reason why this could not be found out.
    Unknown(String),
}

/// What an error of the broker says about a right.
fn right(error: &lapin::Error) -> Result<Right, lapin::Error> {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) if refusal.get_id() == ACCESS_REFUSED => {
            Ok(Right::Missing(refusal.get_message().to_string()))
        }
        // The right was there: the broker went on to the rest of the request.
        ErrorKind::ProtocolError(_) => Ok(Right::Had),
        _ => Err(error.clone()),
    }
}

/// Whether a queue may be read. The broker checks the right before it refuses a consumer for a wrong argument, so
/// nothing is ever delivered to this one.
async fn reads(connection: &Connection, queue: &ShortString) -> anyhow::Result<Right> {
    let channel = connection.create_channel().await?;
    let mut wrong = FieldTable::default();
    wrong.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    match channel.basic_consume(queue.clone(), "doctor".into(), BasicConsumeOptions::default(), wrong).await {
        // This broker does not check arguments.
        Ok(consumer) => {
            channel.basic_cancel(consumer.tag(), lapin::options::BasicCancelOptions::default()).await?;
            channel.close(200, "done".into()).await?;
            Ok(Right::Had)
        }
        Err(error) => Ok(right(&error)?),
    }
}

async fn rights(
    sheet: &mut Sheet,
    connection: &Connection,
    program: Program,
    queues: &Queues,
    publishing: &Right,
    are_there: bool,
) -> anyhow::Result<()> {
    let check = format!("rights of {}", program.name());
    let mut missing: Vec<String> = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    match publishing {
        Right::Had => {}
        Right::Missing(words) => missing.push(words.clone()),
        Right::Unknown(words) => unknown.push(words.clone()),
    }
    if are_there {
        if let Err(error) = queues.declare(connection).await
            && error.is_access_refused()
        {
            missing.push(error.to_string());
        }
        let read =
            if program == Program::Couponctl { vec![&queues.claims, &queues.dead] } else { vec![&queues.claims] };
        for queue in read {
            if let Right::Missing(words) = reads(connection, queue).await? {
                missing.push(words);
            }
        }
    }
    if !missing.is_empty() {
        let remedy = format!(
            "rabbitmqctl set_permissions -p {} as docs/RIGHTS.md has it for {}: '^{}(\\.dead)?$' '^amq\\.default$' '^{2}(\\.dead)?$'",
            queues.vhost,
            program.name(),
            queues.claims.as_str().replace('.', "\\.")
        );
        sheet.wrong(&check, &missing.join("; "), &remedy);
    } else if let Some(words) = unknown.pop() {
        sheet.not_checked(&check, &words);
    } else if are_there {
        sheet.ok(&check, "makes the queues, publishes and reads");
    } else {
        let remedy = "run this again when the queues are there";
        sheet.warning(&check, "it may publish; the rest can be checked only of queues that are there", remedy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(["3.10.8", "3.13", "4.1.0", "4.1.0-rc.1"].into_iter().all(is_recent));
        assert!(!["3.9.29", "2.8.7", "", "unknown"].into_iter().any(is_recent));
    }
}
