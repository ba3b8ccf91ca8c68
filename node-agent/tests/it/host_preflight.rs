//! The preflight child, as a process of its own, on good packages and on bad ones.

use rimward_node_agent::proto::spawn::{Program, run_preflight};
use rimward_node_agent::proto::{FailReason, PreflightReport};

use crate::host_support::{Package, file, model_that_wants, program, tensor};

async fn check(package: Package, reason: FailReason, words: &str) {
    let report = package.preflight().await;
    check_report(report, reason, words);
}

fn check_report(report: PreflightReport, wanted: FailReason, words: &str) {
    match report {
        PreflightReport::Failed { reason, message } => {
            assert_eq!(reason, wanted, "{message}");
            assert!(message.contains(words), "{message}");
        }
        passed @ PreflightReport::Passed { .. } => panic!("{passed:?}"),
    }
}

#[tokio::test]
async fn a_good_package_passes_and_says_what_ran() {
    for package in [Package::good(), Package::pass_through()] {
        let report = package.preflight().await;
        let PreflightReport::Passed {
            runs,
            golden_vectors,
            latency_p50_microseconds,
            ..
        } = report
        else {
            panic!("{report:?}")
        };
        assert_eq!(
            (runs.device.as_str(), runs.precision.as_str()),
            ("cpu", "fp32")
        );
        assert!(runs.backend.starts_with("rten"));
        assert_eq!(golden_vectors, 10);
        assert!(latency_p50_microseconds > 0);
    }
}

#[tokio::test]
async fn a_wrong_answer_is_named_with_vector_expected_and_got() {
    check(
        Package::fixture("wrong"),
        FailReason::GoldenVectorMismatch,
        "golden vector 0: expected 4, got 1",
    )
    .await;
}

#[tokio::test]
async fn a_trap_is_reported_as_one() {
    check(
        Package::fixture("trap"),
        FailReason::GuestTrapped,
        "golden vector 0: module trapped",
    )
    .await;
}

#[tokio::test]
async fn a_module_that_runs_without_end_is_stopped_in_guest_and_in_host_calls() {
    let within = |milliseconds: u64, package: Package| {
        package.limits(|limits| limits.timeout_milliseconds = milliseconds)
    };
    check(
        within(500, Package::fixture("hang")),
        FailReason::TimedOut,
        "golden vector 0",
    )
    .await;
    // By the number of its calls, since its time is not over.
    check(
        within(120_000, Package::fixture("hang").config("in", "host")),
        FailReason::GuestTrapped,
        "calls into the host",
    )
    .await;
}

#[tokio::test]
async fn a_module_that_takes_memory_without_end_is_stopped_in_guest_and_in_host_tensors() {
    // Memory must run out before time does, on a busy machine too.
    let patient = |package: Package| package.limits(|limits| limits.timeout_milliseconds = 120_000);
    check(
        patient(Package::fixture("greedy")),
        FailReason::MemoryExceeded,
        "bytes of memory",
    )
    .await;
    check(
        patient(Package::fixture("greedy").config("of", "host")),
        FailReason::MemoryExceeded,
        "tensors of",
    )
    .await;
}

#[tokio::test]
async fn an_import_outside_the_world_is_refused_by_name() {
    // A component that asks for a clock.
    let name = b"wasi:clocks/monotonic-clock@0.2.0";
    let mut module = b"\0asm\x0d\0\x01\0".to_vec();
    // A type section with one empty instance type, then the import of an instance of it.
    module.extend_from_slice(&[7, 3, 1, 0x42, 0]);
    let mut import = vec![1, 0, name.len() as u8];
    import.extend_from_slice(name);
    import.extend_from_slice(&[5, 0]);
    module.extend_from_slice(&[10, import.len() as u8]);
    module.extend_from_slice(&import);
    let package = Package::good();
    let (mut files, _) = package.files();
    files.module = Some(file(&module));
    let report = run_preflight(&program(), &package.job(), files).await;
    check_report(
        report,
        FailReason::ImportRefused,
        "wasi:clocks/monotonic-clock@0.2.0",
    );
}

#[tokio::test]
async fn modules_and_models_that_are_none_are_refused() {
    let package = Package::good();
    let (mut files, _) = package.files();
    files.module = Some(file(b"not wasm"));
    check_report(
        run_preflight(&program(), &package.job(), files).await,
        FailReason::CompileFailed,
        "module",
    );
    for model in [
        b"".as_slice(),
        b"not a model",
        &package.bytes("model.onnx")[..4000],
    ] {
        let (mut files, _) = package.files();
        files.model = file(model);
        check_report(
            run_preflight(&program(), &package.job(), files).await,
            FailReason::ModelRefused,
            "",
        );
    }
}

#[tokio::test]
async fn golden_vectors_of_another_shape_are_refused_by_name() {
    let mut package = Package::good();
    package.spec.inputs = vec![tensor(
        "image",
        rimward_node_agent::proto::Datatype::Uint8,
        &[-1, 16, 16],
    )];
    check(package, FailReason::GoldenVectorsInvalid, "image").await;
}

#[tokio::test]
async fn a_declared_output_that_the_module_does_not_give_is_refused_by_name() {
    let mut package = Package::good();
    package.spec.outputs.push(tensor(
        "confidence",
        rimward_node_agent::proto::Datatype::Fp32,
        &[-1],
    ));
    check(package, FailReason::TensorMismatch, "confidence").await;
}

#[tokio::test]
async fn a_module_of_another_digest_than_verified_is_refused() {
    let package = Package::good();
    let mut job = package.job();
    job.module_digest = Some(format!("sha256:{}", "0".repeat(64)));
    let report = run_preflight(&program(), &job, package.files().0).await;
    check_report(report, FailReason::CompileFailed, "digest");
}

#[tokio::test]
async fn a_preflight_without_memory_dies_alone_and_says_why() {
    let package = Package::good();
    let mut job = package.job();
    job.memory_bytes_max = 8 << 20;
    let report = run_preflight(&program(), &job, package.files().0).await;
    let PreflightReport::Failed { reason, message } = report else {
        panic!("{report:?}")
    };
    assert_eq!(reason, FailReason::MemoryExceeded, "{message}");
}

#[tokio::test]
async fn a_preflight_over_its_time_reports_that() {
    let package = Package::fixture("hang").limits(|limits| limits.timeout_milliseconds = 600_000);
    let mut job = package.job();
    job.timeout_milliseconds = 1_500;
    let report = run_preflight(&program(), &job, package.files().0).await;
    // A busy machine that gave it no processor says so; which of the two it is, is tested where it is decided.
    let (reason, words) = match &report {
        PreflightReport::Failed { reason, .. } if *reason == FailReason::PreflightInterrupted => {
            (FailReason::PreflightInterrupted, "no processor")
        }
        _ => (FailReason::TimedOut, "longer than 1500 ms"),
    };
    check_report(report, reason, words);
}

#[tokio::test]
async fn a_tiny_model_that_asks_for_eight_gib_ends_with_its_preflight() {
    let package = Package::pass_through();
    let (mut files, _) = package.files();
    files.model = file(&model_that_wants(i32::MAX as u64));
    let report = run_preflight(&program(), &package.job(), files).await;
    check_report(
        report,
        FailReason::MemoryExceeded,
        "memory allocation of 8589934588 bytes failed",
    );
}

#[tokio::test]
async fn a_preflight_that_is_killed_from_outside_condemns_nothing() {
    use std::os::unix::fs::PermissionsExt;
    // A program that is killed at once, as by the system's OOM killer.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("killed");
    std::fs::write(&path, "#!/bin/sh\nkill -9 $$\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let package = Package::good();
    for _ in 0..100 {
        let report = run_preflight(&Program::at(&path), &package.job(), package.files().0).await;
        match &report {
            // Another test's child still has the file open for writing.
            PreflightReport::Failed { message, .. } if message.contains("busy") => {}
            _ => return check_report(report, FailReason::PreflightInterrupted, "from outside"),
        }
    }
    panic!("always busy");
}
