
# What was put off, once each.
if [ -e "$later/systemd-hwdb" ]; then
    sort -u "$later/systemd-hwdb" | while read -r arguments; do
        # shellcheck disable=SC2086
        systemd-hwdb $arguments </dev/null || exit 1
    done || fail "the hardware database cannot be made"
fi
# py3compile once for each package, as it was called, but in one Python: most of its time goes into starting.
# Several at once, of which two may make the same folder.
if [ -e "$later/py3compile" ]; then
    cat >"$later/py3compile.py" <<'END'
import os, runpy, sys
sys.path.insert(1, "/usr/share/python3")
import debpython.files, debpython.interpreter, debpython.option, debpython.version

plain_mkdir = os.mkdir
def mkdir(path, *rest):
    try:
        plain_mkdir(path, *rest)
    except FileExistsError:
        pass
os.mkdir = mkdir

running = {}
def wait_for_one():
    child, status = os.wait()
    call = running.pop(child)
    if status:
        sys.exit("failed: " + " ".join(call))

for line in dict.fromkeys(open("/tmp/amiforge-later/py3compile")):
    if len(running) >= len(os.sched_getaffinity(0)):
        wait_for_one()
    call = ["py3compile", *line.split("\037")[:-1]]
    child = os.fork()
    if child == 0:
        sys.argv = call
        runpy.run_path("/usr/bin/py3compile", run_name="__main__")
        os._exit(0)
    running[child] = call
while running:
    wait_for_one()
END
    python3 "$later/py3compile.py" </dev/null || fail "the bytecode of a package cannot be compiled"
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
