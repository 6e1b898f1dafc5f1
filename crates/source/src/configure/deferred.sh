
# Packages whose preinst moves files of others away: dpkg unpacks them, now that all else is there. What
# they need is unpacked too, but not always configured.
# shellcheck disable=SC2154
for package in $order; do
    deb=$root/var/cache/apt/archives/$package.deb
    [ -e "$deb" ] || continue
    echo "unpack $package"
    # shellcheck disable=SC2086
    dpkg $dpkg_options --force-unsafe-io --force-depends --force-confdef --force-confold --no-triggers \
        --unpack "$deb" </dev/null || fail "unpacking $package failed"
    rm "$deb"
done
