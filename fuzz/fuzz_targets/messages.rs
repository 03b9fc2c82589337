//! A message from RabbitMQ. The input has one line each for its type, its installation, its instance and a trace
//! context, then its body. Claims that are read survive being written again, and a poison message is still poison as a
//! dead letter.
#![no_main]

use coupon_core::rabbitmq::message;
use coupon_core::telemetry::span::{self, TRACEPARENT};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(5, |byte| *byte == b'\n');
    let [kind, app_id, reply_to, traceparent, body] = [(); 5].map(|()| parts.next().unwrap_or_default());
    // A short string of AMQP has at most 255 bytes, and the lossy conversion can triple these 80.
    let short = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    let (kind, app_id, reply_to) = (short(kind), short(app_id), short(reply_to));
    let mut headers = FieldTable::default();
    headers.insert(TRACEPARENT.into(), AMQPValue::LongString(traceparent.to_vec().into()));
    let properties = BasicProperties::default()
        .with_type(kind.into())
        .with_app_id(app_id.into())
        .with_reply_to(reply_to.into())
        .with_headers(headers);

    let decoded = message::decode(&properties, body);
    let kept = message::poison_properties(&properties, "a reason");
    assert_eq!(message::decode(&kept, body).is_ok(), decoded.is_ok());
    assert_eq!(message::reason(&kept).as_deref(), Some("a reason"));
    let _ = span::extract_sampled(properties.headers().as_ref(), 0);
    if let Ok(message) = decoded {
        let again = message::encode(&message.claims).unwrap();
        assert_eq!(message::decode(&properties, &again).unwrap().claims, message.claims);
    }
});
