
fail() {
    echo "amiforge: $*" >&2
    exit 1
}

# What dpkg does before it unpacks, done for all packages after all were unpacked.
mkdir -p /var/log /var/lib/dpkg/updates /var/lib/dpkg/info
dpkg_version=$(dpkg-query --showformat='${Version}' --show dpkg)
for package in $order; do
    script=/var/lib/dpkg/info/$package.preinst
    [ -e "$script" ] || script=/var/lib/dpkg/info/$package:$native.preinst
    [ -e "$script" ] || continue
    echo "preinst $package"
    DPKG_MAINTSCRIPT_PACKAGE=$package DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_ARCH=$native \
        DPKG_MAINTSCRIPT_NAME=preinst DPKG_RUNNING_VERSION=$dpkg_version \
        DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT='' "$script" install </dev/null ||
        fail "the preinst script of $package failed"
done

# Overrides that those scripts registered hold for files that are there already.
while read -r owner group mode path; do
    if [ -e "$path" ]; then
        chown "${owner#\#}:${group#\#}" "$path"
        chmod "$mode" "$path"
    fi
done </var/lib/dpkg/statoverride

# Some work is put off, or left out. Compiling bytecode for one package after the other takes seconds that nobody waits
# for, and is done at the end; the database of hardware is made beside the scripts that follow, after an earlier one of it.
# Host keys would be made only to be removed. And two packages wait for services that were not started. These programs
# are found before the real ones, by name; the folder goes with the job.
later=/tmp/amiforge-later
mkdir -p "$later/bin"
cat >"$later/bin/py3compile" <<'END'
#!/bin/sh
{ printf '%s\037' "$@"; echo; } >>/tmp/amiforge-later/py3compile
END
cat >"$later/bin/systemd-hwdb" <<'END'
#!/bin/sh
exec 9>>/tmp/amiforge-later/hardware
flock 9
PATH=${PATH#/tmp/amiforge-later/bin:}
{ systemd-hwdb "$@" || echo "$*" >>/tmp/amiforge-later/hardware-failed; } </dev/null >>/tmp/amiforge-later/hardware.log 2>&1 &
END
cat >"$later/bin/ssh-keygen" <<'END'
#!/bin/sh
case "$*" in
    *" /etc/ssh/ssh_host_"*) exit 0 ;;
esac
exec /usr/bin/ssh-keygen "$@"
END
cat >"$later/bin/sleep" <<'END'
#!/bin/sh
case "${DPKG_MAINTSCRIPT_PACKAGE-}" in
    libc6 | libpam0g) exit 0 ;;
esac
exec /bin/sleep "$@"
END
chmod 755 "$later"/bin/*
plain_path=$PATH
export PATH=$later/bin:$PATH PYTHONDONTWRITEBYTECODE=1

