
# One initrd for each kernel: `update-initramfs -c` without its test of the running system and its hooks for boot
# loaders.
for modules in /lib/modules/*; do
    version=${modules##*/}
    [ -e "/boot/vmlinuz-$version" ] || continue
    [ -e "$modules/modules.dep" ] || depmod "$version"
    echo "initrd for $version"
    mkinitramfs -o "/boot/initrd.img-$version" "$version" </dev/null || fail "making the initrd failed"
done
