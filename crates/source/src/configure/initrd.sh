
# One initrd for each kernel. This is `update-initramfs -c` without its test of the running system.
if [ -x /usr/sbin/mkinitramfs ]; then
    for modules in /lib/modules/*; do
        version=${modules##*/}
        [ -e "/boot/vmlinuz-$version" ] || continue
        image=/boot/initrd.img-$version
        echo "initrd for $version"
        depmod "$version"
        mkinitramfs -o "$image.new" "$version"
        mv -f "$image.new" "$image"
    done
    rm -rf /var/tmp/mkinitramfs*
fi
wait "$bytecode" || fail "the bytecode of a package cannot be compiled"
