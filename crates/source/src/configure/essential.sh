
configure() {
    dpkg --force-unsafe-io --force-confdef --force-confold --configure "$@" </dev/null
}
# Accounts, then the base of the file system, then what every other package may rely on without saying so.
for stage in "$stage0" "$stage1" "$stage2"; do
    if [ -n "$stage" ]; then
        # shellcheck disable=SC2086
        configure $stage || fail "configuring the essential packages failed"
    fi
done
