
# What was put off.
if [ -n "$ahead" ]; then
    : >"$later/enough"
    wait "$ahead" || true
    cat "$later/ahead.log"
fi
if [ -e "$later/py3compile" ]; then
    PYTHONDONTWRITEBYTECODE=yes python3 "$later/py3compile.py" asked "$later" /var/lib/dpkg </dev/null ||
        fail "the bytecode of a package cannot be compiled"
fi
if [ -e "$later/hardware" ]; then
    flock "$later/hardware" cat "$later/hardware.log"
    [ ! -e "$later/hardware-failed" ] || fail "the hardware database cannot be made"
fi
if [ -n "$initrd" ]; then
    made=yes
    wait "$initrd" || made=
    cat "$later/initrd.log"
    [ -n "$made" ] || fail "making the initrd failed"
    # shellcheck disable=SC2086
    changed=$(find $initrd_inputs -cnewer "$later/initrd-begun" -print -quit 2>/dev/null || true)
    if [ -e "$later/update-initramfs" ] || [ -n "$changed" ]; then
        echo "the initrd is made again: ${changed:-a package asked for it}"
        initrds
    fi
    for image in "$aside"/*; do
        [ ! -e "$image" ] || mv -f "$image" /boot/
    done
fi
