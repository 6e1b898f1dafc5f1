
# One initrd for each kernel. This is `update-initramfs -c` without its test of the running system.
initrds() {
    export PATH=$plain_path
    for modules in /lib/modules/*; do
        version=${modules##*/}
        [ -e "/boot/vmlinuz-$version" ] || continue
        image=/boot/initrd.img-$version
        echo "initrd for $version"
        mkinitramfs -o "$image.new" "$version"
        mv -f "$image.new" "$image"
    done
    rm -rf /var/tmp/mkinitramfs*
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
    for modules in /lib/modules/*; do
        [ -e "$modules/modules.dep" ] || depmod "${modules##*/}"
    done
    rm -f "$later/update-initramfs"
    touch "$later/initrd-begun"
    initrds >"$later/initrd.log" 2>&1 </dev/null &
    initrd=$!
fi
