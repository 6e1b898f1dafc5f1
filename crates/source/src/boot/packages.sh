
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
# Each file is what its name says: what is locked by that name is what dpkg installs.
for deb in "$place"/*.deb; do
    [ -e "$deb" ] || continue
    # shellcheck disable=SC2016
    says=$(dpkg-deb --show --showformat '${Package}_${Version}_${Architecture}.deb' "$deb") || fail "${deb##*/} is no package"
    name=${deb##*/}
    [ "$says" = "${name//%3a/:}" ] || fail "$name is the package $says"
done

apt-mark showmanual >"$later/manual"
set -- "$place"/*.deb
if [ -e "$1" ]; then
    apt install --no-install-recommends -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" ||
        fail "installing the packages for a boot failed"
fi
# shellcheck disable=SC2016
dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Architecture}\n' |
    sed -n 's/^installed //p' >"$later/there"
native=$(dpkg --print-architecture)

# What was asked for is there, whatever the packages were. `name=version`, `name/suite` and `name:arch` are names, too.
for entry in $wanted; do
    found=
    for name in ${entry//|/ }; do
        name=${name%%[=/]*}
        arch=
        case $name in
            *:*) arch=${name#*:} name=${name%%:*} ;;
        esac
        if awk -v name="$name" -v arch="$arch" \
            '$1 == name && (arch == "" || $2 == arch || $2 == "all") { found = 1 } END { exit !found }' "$later/there"; then
            found=$name${arch:+:$arch}
            echo "$found" >>"$later/manual"
            break
        fi
    done
    [ -n "$found" ] || fail "${entry//|/ or } is not among the packages for a boot that the lock has"
done

# Given as files, all of them count as asked for: only those are that stand in the list, and what was before.
awk -v native="$native" -v auto="$later/auto" -v asked="$later/asked" '
    NR == FNR { manual[$1] = 1; next }
    {
        full = $2 == "all" ? $1 : $1 ":" $2
        own = $2 == "all" || $2 == native
        print full > ((full in manual) || (($1 ":" $2) in manual) || (own && ($1 in manual)) ? asked : auto)
    }' "$later/manual" "$later/there"
[ ! -s "$later/asked" ] || xargs apt-mark -qq manual <"$later/asked"
[ ! -s "$later/auto" ] || xargs apt-mark -qq auto <"$later/auto"
