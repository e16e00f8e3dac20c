use libtest_mimic::Failed;
pub fn through_envoy() -> Result<(), Failed> {
    Ok(())
}
