
# One initrd for each kernel, kept aside so that no script finds a half of them in /boot. This is
# `update-initramfs -c` without its test of the running system and its hooks for boot loaders.
aside=/var/tmp/amiforge-initrd
kernels() {
    for modules in /lib/modules/*; do
        version=${modules##*/}
        [ ! -e "/boot/vmlinuz-$version" ] || echo "$version"
    done
}
initrds() {
    export PATH=$plain_path
    mkdir -p "$aside"
    for version in $(kernels); do
        echo "initrd for $version"
        mkinitramfs -o "$aside/initrd.img-$version" "$version"
    done
}

# As on a running system, an initrd has to be made again when a package asks for that by update-initramfs
# (which here notes it), and only then. So it is begun as soon as the packages are configured that have a hand
# in it, while all others are still to come.
initrd=
initrd_inputs="/etc/crypttab /etc/fstab /etc/initramfs-tools /etc/ld.so.conf /etc/ld.so.conf.d
    /etc/lvm /etc/mdadm /etc/modprobe.d /etc/modules /etc/modules-load.d /etc/udev /lib/modules /usr/share/initramfs-tools"
if [ -x /usr/sbin/mkinitramfs ]; then
    # shellcheck disable=SC2086
    first=$(perl "$later/initrd.pl" /var/lib/dpkg $initrd_inputs) || fail "the dpkg database cannot be read"
    if [ -n "$first" ]; then
        # shellcheck disable=SC2086
        configure $first || fail "configuring the packages failed"
    fi
    for version in $(kernels); do
        [ -e "/lib/modules/$version/modules.dep" ] || depmod "$version"
    done
    [ ! -e "$later/hardware" ] || flock "$later/hardware" true
    rm -f "$later/update-initramfs"
    touch "$later/initrd-begun"
    initrds >"$later/initrd.log" 2>&1 </dev/null &
    initrd=$!
fi
