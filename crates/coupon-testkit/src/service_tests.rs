//! The tests that every service's program must pass, written once.

/// Generates the tests of a service's program: those that every service must pass, and the listed checks from
/// [`program`](crate::program). `$wrong` holds a wrong value for each of many variables.
#[macro_export]
macro_rules! service_tests {
    ($settings:ty, $program:expr, $wrong:expr, [$($check:ident),+ $(,)?] $(,)?) => {
        #[tokio::test]
        async fn help_is_complete() {
            $crate::program::help_is_complete::<$settings>($program).await;
        }

        #[tokio::test]
        async fn wrong_settings_are_all_named_at_once() {
            $crate::program::wrong_settings_are_all_named($program, $wrong).await;
        }

        #[test]
        fn every_option_is_taken_or_named() {
            $crate::options::every_option_is_taken_or_named::<$settings>(|_| Ok(()));
        }

        #[tokio::test]
        async fn odd_variables_are_named() {
            $crate::options::odd_variables_are_named::<$settings>($program, &[]).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn it_keeps_its_secrets() {
            let check = $crate::secrets::a_service_keeps_its_secrets::<$settings>;
            $crate::run(async |space| check($program, &space).await).await;
        }

        $crate::service_tests!(@each $settings, $program, [
            a_missing_schema_is_named,
            an_address_that_is_taken_is_named,
            its_health_is_asked_at_its_own_listener,
            signals_stop_it,
            too_few_open_files_are_named,
            $($check),+
        ]);
    };
    (@each $settings:ty, $program:expr, [$($check:ident),+]) => {$(
        #[tokio::test]
        async fn $check() {
            $crate::run(async |space| $crate::program::$check::<$settings>($program, &space).await).await;
        }
    )+};
}
