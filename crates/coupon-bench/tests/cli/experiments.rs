//! Runs experiments that start the services themselves, as small as they can be.

use coupon_testkit::{program, run};

use super::{PROGRAM, arguments};

#[tokio::test(flavor = "multi_thread")]
async fn a_matrix_becomes_a_page_that_loads_nothing_from_elsewhere() {
    run(async |space| {
        let folder = std::env::temp_dir().join(space.name());
        let [report, page] = ["report.json", "page.html"].map(|name| folder.join(name).display().to_string());
        let only = "--only queue --only coalesced --only select-update";
        let line = format!("matrix --claims 100 --turns 1 {only} --report {report}");
        let no_broker = ["--only", "queue, no broker"].map(String::from);
        let measure = [&arguments(&line)[..], &no_broker].concat();
        let measured = program::run(PROGRAM, &measure, &space.environment()).await;
        let resume = [&measure[..], &[String::from("--resume")]].concat();
        let resumed = program::run(PROGRAM, &resume, &space.environment()).await;
        let render = arguments(&format!("report {report} {report} --page {page}"));
        let rendered = program::run(PROGRAM, &render, &[]).await;
        let printed = program::run(PROGRAM, &arguments(&format!("report {report}")), &[]).await;
        let as_json = program::run(PROGRAM, &arguments(&format!("report {report} --json")), &[]).await;
        let as_json: serde_json::Value = serde_json::from_str(&as_json.stdout).unwrap();
        assert_eq!((&as_json[0]["name"], as_json[0]["cells"].as_array().unwrap().len()), (&report.clone().into(), 8));

        assert_eq!(measured.code, Some(0), "{measured:?}");
        assert!(measured.stdout.contains("100 claims for 10 coupons"), "{measured:?}");
        assert_eq!((resumed.code, &resumed.stdout), (Some(0), &measured.stdout), "nothing is left to measure");
        assert_eq!(rendered.code, Some(0), "{rendered:?}");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("default-src 'none'") && page.len() < 150_000, "{} bytes", page.len());
        for outside in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "the page contains {outside}");
        }
        for part in ["Outcomes over time", "100 claims for 10 coupons", "CPU time of a claim", "STRATEGY=select-update"]
        {
            assert!(
                page.contains(part) && page.matches(part).count() >= 2,
                "{part} is missing for one of the two reports"
            );
        }
        assert!(printed.stdout.contains("## 100 claims for 100 coupons"), "{printed:?}");
        std::fs::write(&report, "{}").unwrap();
        let broken = program::run(PROGRAM, &arguments(&format!("report {report}")), &[]).await;
        assert_eq!((broken.code, broken.stderr.lines().count()), (Some(1), 1), "{broken:?}");
        std::fs::remove_dir_all(folder).unwrap();
        space.audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_counts_what_was_accepted_and_refused() {
    run(async |space| {
        let report = std::env::temp_dir().join(space.name());
        let line = format!("burst --claims 60 --rate 6000 --clients 8 --turns 1 --report {} --json", report.display());
        let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        let figures: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let cases = figures["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 4);
        for case in cases {
            let [accepted, refused, failed] =
                ["accepted", "refused", "failed"].map(|name| case["turns"][0][name].as_u64().unwrap());
            // On a slow machine a strategy that is there for comparison refuses claims.
            assert_eq!((accepted + refused, failed), (60, 0), "{case}");
        }
        assert_eq!(std::fs::read_to_string(&report).unwrap().trim(), ran.stdout.trim());
        std::fs::remove_file(report).unwrap();
        space.audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_measures_every_combination_and_names_the_knee() {
    run(async |space| {
        let report = std::env::temp_dir().join(space.name());
        let over = "--over consumers=1 --over PREFETCH=5,20 --over BATCH_MAX=10,500";
        let line = format!("sweep --way queue {over} --claims 60 --turns 1 --report {}", report.display());
        let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        for words in ["claims a second, queue consumers=1: PREFETCH by BATCH_MAX", "the knee  consumers=1 PREFETCH="] {
            assert!(ran.stdout.contains(words), "{words} is missing: {ran:?}");
        }
        let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
        let values: Vec<_> = figures["points"].as_array().unwrap().iter().map(|point| &point["values"]).collect();
        assert_eq!(serde_json::json!(values), serde_json::json!([[1, 5, 10], [1, 5, 500], [1, 20, 10], [1, 20, 500]]));
        std::fs::remove_file(report).unwrap();
        space.audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_schema_is_that_of_the_reports() {
    let published = include_str!("../../../../docs/benchmarks/report.schema.json");

    let printed = program::run(PROGRAM, &arguments("report --schema"), &[]).await;

    let hint = "write it again: coupon-bench report --schema > docs/benchmarks/report.schema.json";
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(0), published), "{hint}");
}
