//! The load tool as a caller. Goal: each of its claims is one whole trace, which includes the wait of the client.
//! Method: the real program against the services, and a collector for all of them.

use coupon_testkit::{Collector, Span, TestSpace, eventually};

use super::one;
use crate::programs::{bench, consumer, producer, skiplock, traced};

audited![each_claim_of_the_bench_is_one_whole_trace];

/// Whether a trace has one root, and the parent of every other span is in it.
fn is_whole(trace: &[Span]) -> bool {
    let has_parent = |span: &Span| trace.iter().any(|parent| parent.id == span.parent_id);
    let (roots, others): (Vec<&Span>, Vec<&Span>) = trace.iter().partition(|span| span.parent_id.is_empty());
    roots.len() == 1 && others.into_iter().all(has_parent)
}

async fn each_claim_of_the_bench_is_one_whole_trace(space: &TestSpace) {
    let collector = Collector::start().await;
    let (producer, _) = producer(space, &traced(&collector)).await;
    let (skiplock, _) = skiplock(space, &traced(&collector)).await;
    let _consumer = consumer(space, &traced(&collector)).await;
    let client_steps = ["ask for outcome", "wait for outcome"];
    for (api, ask, last, steps) in [
        (producer.address(), "long-poll", "ack", &client_steps[..]),
        (producer.address(), "prefer", "ack", &client_steps[1..]),
        (skiplock.address(), "long-poll", "UPDATE coupon", &[]),
    ] {
        let campaign = space.campaign(3).await;
        let line = format!(
            "--json load --url http://{api} --campaign {campaign} --accounts 3 --clients 1 --trace-ratio 1 --ask {ask}"
        );
        let load = bench(space, &line, &traced(&collector)).await;

        let ids = load[0]["trace_ids"].as_array().unwrap();
        assert_eq!(ids.len(), 3, "{load}");
        for id in ids {
            let id = id.as_str().unwrap();
            let root = |span: &Span| span.service == "coupon-bench" && span.parent_id.is_empty();
            eventually("the trace is whole", async || {
                let trace = collector.trace(id);
                let has = |name: &&str| trace.iter().any(|span| span.name == **name);
                trace.iter().any(root) && is_whole(&trace) && steps.iter().chain([&last]).all(has)
            })
            .await;
            let trace = collector.trace(id);
            let root = trace.iter().find(|span| root(span)).unwrap();
            assert_eq!((root.name.as_str(), root.attribute("coupon.outcome")), ("claim", "issued"), "{root:?}");
            for step in steps {
                let step = one(&trace, step);
                assert!(root.time.0 <= step.time.0 && step.time.1 <= root.time.1, "{step:?} within {root:?}");
            }
        }
    }
}
