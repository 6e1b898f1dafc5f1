
configure --pending || fail "configuring the packages failed"
unfinished=$(dpkg-query --showformat='${db:Status-Abbrev} ${Package}\n' --show | grep -v '^ii' || true)
[ -z "$unfinished" ] || fail "packages are not configured: $unfinished"

export PATH=${PATH#"$later/bin:"}
unset PYTHONDONTWRITEBYTECODE
# Beside the initrd, which uses another processor and none of these files.
bytecode() {
    [ -e "$later/py3compile" ] || return 0
    while read -r arguments; do
        # shellcheck disable=SC2086
        py3compile $arguments </dev/null || return 1
    done <"$later/py3compile"
}
bytecode &
bytecode=$!
