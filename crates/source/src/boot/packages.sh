
# Programs that stand aside, found before the real ones by name: each kernel gets one initrd, at the end, and host keys
# would be made only to be removed.
later=/tmp/amiforge-later
mkdir -p "$later/bin" "$later/lists/partial"
for name in update-initramfs ssh-keygen; do
    printf '#!/bin/sh\nexit 0\n' >"$later/bin/$name"
done
chmod 755 "$later"/bin/*
export PATH=$later/bin:$PATH

# By files alone: what archives have today, or had when the parent was made, decides nothing.
apt() {
    apt-get -q -y -o APT::Sandbox::User=root -o DPkg::Path= -o Dpkg::Use-Pty=0 -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$later/lists" "$@" </dev/null
}
installed() {
    # shellcheck disable=SC2016
    dpkg-query --show --showformat '${db:Status-Status} ${binary:Package} ${Package}\n' | sed -n 's/^installed //p'
}
apt-mark showmanual >"$later/manual"
installed >"$later/before"
if [ -n "$(find "$place" -name '*.deb' | head -n 1)" ]; then
    apt install --no-install-recommends -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        "$place"/*.deb || fail "installing the packages for a boot failed"
fi
installed >"$later/after"

# Given as files, all of them count as asked for: only those are that stand in the list, and what was before.
for entry in $wanted; do
    for name in ${entry//|/ }; do
        if grep -q " $name\$" "$later/after"; then
            echo "$name" >>"$later/manual"
            break
        fi
    done
done
while read -r full name; do
    grep -qxF -e "$full" -e "$name" "$later/manual" || echo "$full"
done <"$later/after" >"$later/auto"
grep -xF -f "$later/manual" <(cut -d ' ' -f 2 "$later/after" | sort -u) >"$later/asked" || true
xargs -r apt-mark -qq manual <"$later/asked"
xargs -r apt-mark -qq auto <"$later/auto"
