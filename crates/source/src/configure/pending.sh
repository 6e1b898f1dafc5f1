
configure --pending || fail "configuring the packages failed"
unfinished=$(dpkg-query --showformat='${db:Status-Abbrev} ${Package}\n' --show | grep -v '^ii' || true)
[ -z "$unfinished" ] || fail "packages are not configured: $unfinished"

export PATH=$plain_path
unset PYTHONDONTWRITEBYTECODE
