//! Compiles the contract without a protoc binary, so that a fresh machine needs only cargo.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/worker.proto");
    let files = protox::compile(["proto/worker.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // The first frame of a session and by far the largest: every queue would have room for many.
        .boxed(".plenum.worker.v1.ClientFrame.frame.start")
        .compile_fds(files)?;
    Ok(())
}
