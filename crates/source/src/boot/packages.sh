
# Programs that stand aside, found before the real ones by name: each kernel gets one initrd, at the end, and host keys
# would be made only to be removed.
later=/tmp/amiforge-later
mkdir -p "$later/bin"
for name in update-initramfs ssh-keygen; do
    printf '#!/bin/sh\nexit 0\n' >"$later/bin/$name"
done
chmod 755 "$later"/bin/*
export PATH=$later/bin:$PATH

command -v apt-get >/dev/null || fail "the parent has no apt-get, by which packages could be added"
apt() {
    # shellcheck disable=SC2086
    apt-get -q -y -o APT::Sandbox::User=root -o DPkg::Path= -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
        -o Acquire::Languages=none $sources "$@" </dev/null
}
apt update || fail "apt-get update failed: the parent's own package sources are used, or those of amiforge.apt.mirror"

# Names came and went between releases: of each entry the first that the sources have.
install=
for entry in $wanted; do
    found=
    for name in ${entry//|/ }; do
        # shellcheck disable=SC2086
        if apt-cache $sources show "$name" >/dev/null 2>&1; then
            found=$name
            break
        fi
    done
    [ -n "$found" ] || fail "the package sources of the parent have no package ${entry//|/ or }"
    install="$install $found"
done
# shellcheck disable=SC2086
apt install --no-install-recommends -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold $install ||
    fail "installing the packages for a boot failed"
