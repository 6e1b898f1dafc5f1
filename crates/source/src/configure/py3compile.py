# Bytecode of packages, as their scripts ask for it by py3compile, in one Python: most of the time of a call goes into
# starting. Several at once, of which two may make the same folder.
#
#     py3compile.py ahead LATER DPKG ARCHITECTURE PACKAGE...   what the scripts of these packages will ask for, kept aside
#     py3compile.py asked LATER DPKG                           what was asked for, of that what is ready
import os, re, runpy, shutil, sys
sys.path.insert(1, "/usr/share/python3")
import debpython.files, debpython.interpreter, debpython.option, debpython.version

mode, later, dpkg, *rest = sys.argv[1:]
aside = f"{later}/bytecode"

plain_mkdir = os.mkdir
def mkdir(path, *rest):
    try:
        plain_mkdir(path, *rest)
    except FileExistsError:
        pass
os.mkdir = mkdir

# A call is its arguments, each with \037 behind it, as the program that stands for py3compile writes them.
def lines(name):
    try:
        with open(f"{later}/{name}") as file:
            return list(dict.fromkeys(line.rstrip("\n") for line in file))
    except FileNotFoundError:
        return []

def run(calls, ended):
    running = {}
    def wait_for_one():
        child, status = os.wait()
        ended(running.pop(child), status)
    for call in calls:
        if len(running) >= len(os.sched_getaffinity(0)):
            wait_for_one()
        child = os.fork()
        if child == 0:
            sys.argv = ["py3compile", *call.split("\037")[:-1]]
            runpy.run_path("/usr/bin/py3compile", run_name="__main__")
            os._exit(0)
        running[child] = call
    while running:
        wait_for_one()

# As debpython has it, but without dpkg, which is at work meanwhile.
def sources(name, extensions=(".py",)):
    for path in (f"{dpkg}/info/{name}.list", f"{dpkg}/info/{name.partition(':')[0]}.list"):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return [line for line in file.read().splitlines() if line.endswith(tuple(extensions))]
    raise FileNotFoundError(f"{name} has no list of files")

# The calls for one package's files, without options, in the script of a package.
def foreseen(script):
    try:
        with open(script, encoding="utf-8") as file:
            text = file.read()
    except (FileNotFoundError, UnicodeDecodeError):
        return
    for match in re.finditer(r"^[ \t]*py3compile[ \t]+-p((?:[ \t]+\w[-\w.+:]*|[ \t]+/[-\w.+/]*)+)[ \t]*$", text, re.MULTILINE):
        yield "".join(word + "\037" for word in ["-p", *match.group(1).split()])

# Puts what is ready for a call in its place; says whether it was ready and is still right.
def place(call):
    found = []
    for source in sources(call.split("\037")[1]):
        folder, name = os.path.split(source)
        if not os.path.isdir(aside + folder):
            continue
        for made in os.scandir(aside + folder):
            if made.name.startswith(name[:-2]) and made.name.count(".") == name.count(".") + 1:
                if os.stat(source).st_ctime_ns >= made.stat().st_mtime_ns:
                    return False
                found.append((made.path, f"{folder}/__pycache__", made.name))
    for path, folder, name in found:
        mkdir(folder)
        shutil.copyfile(path, f"{folder}/.{name}")
        os.replace(f"{folder}/.{name}", f"{folder}/{name}")
    return bool(found)

if mode == "ahead":
    native, *packages = rest
    debpython.files.from_package = sources
    # Nothing reaches the image before a script asked for it: py3compile makes its folders, Python the files aside.
    os.mkdir = lambda path, *rest: None
    def calls():
        scripts = [f"{dpkg}/info/{name}{arch}.postinst" for name in packages for arch in ("", ":" + native)]
        found = list(dict.fromkeys(call for script in scripts for call in foreseen(script)))
        packages_of = [call.split("\037")[1] for call in found]
        for call, package in zip(found, packages_of):
            if os.path.exists(f"{later}/enough"):
                break
            # What is aside is told apart by package.
            if packages_of.count(package) == 1:
                yield call
    # What fails here is done when it is asked for, and told then.
    def ended(call, status):
        if not status:
            with open(f"{later}/py3compile.ready", "a") as ready:
                ready.write(call + "\n")
    run(calls(), ended)
else:
    ready = lines("py3compile.ready")
    def ended(call, status):
        if status:
            sys.exit("failed: py3compile " + " ".join(call.split("\037")))
    run([call for call in lines("py3compile") if not (call in ready and place(call))], ended)
