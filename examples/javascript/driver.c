// Makes a program out of QuickJS (npm quickjs-wasi, a library for embedders): `quickjs.wasm -e SCRIPT` runs the script.
//
// The build merges this module with QuickJS's own into one. Both use QuickJS's linear memory: this module's few
// kilobytes of data and stack lie at the very bottom of it, which is the far end of QuickJS's 1 MiB stack; QuickJS
// itself stops a script that has used a quarter of that.
//
// A script finds, beside the language's own objects:
//   Spore.input()        the input of the call, a string decoded from UTF-8
//   Spore.inputBytes()   the same, as a Uint8Array
//   Spore.env()          the environment, an object of strings; of names that stand there twice, the first
//   Spore.output(x)      appends a string (as UTF-8) or a Uint8Array to the output
//   print(...)           appends its arguments and a newline to the output
//   console.log(...)     and .error, .warn, .info, .debug: a line in the call's log
// A script may use await at its top level. What it throws and does not catch, also in a promise, ends the call with
// exit code 1 and its stack in the log.
#include <stddef.h>
#include <stdint.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))
#define QUICKJS(name) __attribute__((import_module("quickjs"), import_name(#name))) name
#define EXPORT(name) __attribute__((export_name(#name))) name

typedef struct {
  uint8_t* bytes;
  uint32_t size;
} Buffer;

WASI(args_sizes_get) uint16_t args_sizes_get(uint32_t* count, uint32_t* size_bytes);
WASI(args_get) uint16_t args_get(char** arguments, char* text);
WASI(environ_sizes_get) uint16_t environ_sizes_get(uint32_t* count, uint32_t* size_bytes);
WASI(environ_get) uint16_t environ_get(char** variables, char* text);
WASI(fd_read) uint16_t fd_read(uint32_t fd, const Buffer* to, uint32_t count, uint32_t* read);
WASI(fd_write) uint16_t fd_write(uint32_t fd, const Buffer* from, uint32_t count, uint32_t* written);
WASI(proc_exit) _Noreturn void proc_exit(uint32_t code);

// A JavaScript value, in a box of its own on QuickJS's heap: whoever has it frees it.
typedef struct Value Value;

void QUICKJS(_initialize)(void);
void* QUICKJS(wasm_malloc)(size_t size);
void QUICKJS(wasm_free)(void* p);
int QUICKJS(qjs_init)(void);
Value* QUICKJS(qjs_eval)(const char* code, size_t size, const char* file, int flags);
int QUICKJS(qjs_is_exception)(Value* value);
Value* QUICKJS(qjs_get_exception)(void);
int QUICKJS(qjs_is_job_pending)(void);
int QUICKJS(qjs_execute_pending_job)(void);
Value* QUICKJS(qjs_get_undefined)(void);
Value* QUICKJS(qjs_get_global)(void);
Value* QUICKJS(qjs_get_prop_string)(Value* object, const char* name);
int QUICKJS(qjs_set_prop_string)(Value* object, const char* name, Value* value);
Value* QUICKJS(qjs_new_string)(const char* text, size_t size);
const char* QUICKJS(qjs_get_string_len)(Value* value, size_t* size);
void QUICKJS(qjs_free_cstring)(const char* text);
Value* QUICKJS(qjs_new_uint8_array)(const uint8_t* bytes, size_t size);
Value* QUICKJS(qjs_get_typed_array_buffer)(Value* array, size_t* offset, size_t* size, size_t* element_bytes);
uint8_t* QUICKJS(qjs_get_array_buffer)(Value* buffer, size_t* size);
Value* QUICKJS(qjs_new_host_function)(const char* name, size_t size, int flags);
void QUICKJS(qjs_set_promise_rejection_handler)(int enabled);
Value* QUICKJS(qjs_dup_value)(Value* value);
void QUICKJS(qjs_free_value)(Value* value);
void* QUICKJS(qjs_get_value_ptr)(Value* value);
int QUICKJS(qjs_promise_state)(Value* promise);
Value* QUICKJS(qjs_promise_result)(Value* promise);

enum { kStdin = 0, kStdout = 1, kStderr = 2, kBytesMax = 1 << 30 };
enum { kEvalGlobal = 0, kEvalAsync = 1 << 7 };  // JS_EVAL_FLAG_ASYNC: top-level await; the value is a promise
enum { kPending = 0, kFulfilled = 1, kRejected = 2 };

static size_t length_of(const char* text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

static void write_bytes(uint32_t fd, const uint8_t* bytes, size_t size) {
  while (size > 0) {
    const Buffer from = {(uint8_t*)bytes, size};
    uint32_t written = 0;
    if (fd_write(fd, &from, 1, &written) != 0 || written > size) proc_exit(1);
    bytes += written;
    size -= written;
  }
}

static void write_text(uint32_t fd, const char* text) { write_bytes(fd, (const uint8_t*)text, length_of(text)); }

static _Noreturn void fail(const char* why) {
  write_text(kStderr, why);
  proc_exit(1);
}

static void* allocate(size_t size) {
  void* p = wasm_malloc(size);
  if (!p) fail("quickjs: out of memory\n");
  return p;
}

static Buffer read_input(void) {
  size_t capacity = 64 << 10;
  Buffer input = {allocate(capacity), 0};
  for (;;) {
    if (input.size == capacity) {
      if (capacity >= kBytesMax) fail("quickjs: the input is too large\n");
      uint8_t* larger = allocate(2 * capacity);
      __builtin_memcpy(larger, input.bytes, input.size);
      wasm_free(input.bytes);
      input.bytes = larger;
      capacity *= 2;
    }
    const Buffer to = {input.bytes + input.size, capacity - input.size};
    uint32_t count = 0;
    if (fd_read(kStdin, &to, 1, &count) != 0 || count > to.size) fail("quickjs: the input cannot be read\n");
    if (count == 0) return input;
    input.size += count;
  }
}

// "NAME=value", a zero byte behind each.
static Value* environment(void) {
  uint32_t count = 0, size = 0;
  if (environ_sizes_get(&count, &size) != 0) fail("quickjs: no environment\n");
  char** variables = allocate((count + 1) * sizeof(char*));
  char* text = allocate(size + 1);
  if (environ_get(variables, text) != 0) fail("quickjs: no environment\n");
  Value* string = qjs_new_string(text, size);
  wasm_free(variables);
  wasm_free(text);
  return string;
}

static void write_string(uint32_t fd, Value* string) {
  size_t size = 0;
  const char* text = qjs_get_string_len(string, &size);
  if (!text) return;
  write_bytes(fd, (const uint8_t*)text, size);
  qjs_free_cstring(text);
}

static void write_array(uint32_t fd, Value* array) {
  size_t offset = 0, size = 0, element_bytes = 0, buffer_size = 0;
  Value* buffer = qjs_get_typed_array_buffer(array, &offset, &size, &element_bytes);
  const uint8_t* bytes = qjs_get_array_buffer(buffer, &buffer_size);
  if (bytes && offset <= buffer_size && size <= buffer_size - offset) write_bytes(fd, bytes + offset, size);
  qjs_free_value(buffer);
}

// Tells what was thrown, with its stack where it has one, and ends.
static _Noreturn void uncaught(Value* thrown) {
  write_text(kStderr, "Uncaught ");
  write_string(kStderr, thrown);
  write_text(kStderr, "\n");
  Value* stack = qjs_get_prop_string(thrown, "stack");
  if (!qjs_is_exception(stack)) write_string(kStderr, stack);
  proc_exit(1);
}

static void check(Value* value) {
  if (qjs_is_exception(value)) uncaught(qjs_get_exception());
}

// ---- what QuickJS asks of its embedder ------------------------------------------------------------------------------

// A host function has been called: by its name, one of those in `prelude`. Arguments are the caller's.
Value* EXPORT(host_call)(const char* name, size_t name_size, Value* self, int count, Value** arguments) {
  (void)self;
  if (name_size == 1 && (name[0] == 's' || name[0] == 'b')) {
    static Buffer input;
    if (!input.bytes) input = read_input();
    return name[0] == 's' ? qjs_new_string((const char*)input.bytes, input.size)
                          : qjs_new_uint8_array(input.bytes, input.size);
  }
  if (name_size == 1 && name[0] == 'v') return environment();
  if (name_size == 1 && count == 1) {
    if (name[0] == 'o') write_string(kStdout, arguments[0]);
    if (name[0] == 'e') write_string(kStderr, arguments[0]);
    if (name[0] == 'a') write_array(kStdout, arguments[0]);
  }
  return qjs_get_undefined();
}

int EXPORT(host_interrupt)(void) { return 0; }

// The zone's offset at a time, in seconds: UTC always.
int EXPORT(host_get_timezone_offset)(uint32_t high, uint32_t low) {
  (void)high, (void)low;
  return 0;
}

// Promises that were rejected while nobody listened; one that is listened to later is taken off again. Where there are
// more at once, the first ones stand for all.
enum { kRejectedMax = 64 };
static struct {
  const void* promise;
  Value* reason;
} rejected[kRejectedMax];
static int rejected_count;

void EXPORT(host_promise_rejection)(Value* promise, Value* reason, int is_handled) {
  const void* identity = qjs_get_value_ptr(promise);
  if (!is_handled) {
    if (rejected_count == kRejectedMax) return;
    rejected[rejected_count].promise = identity;
    rejected[rejected_count++].reason = qjs_dup_value(reason);
    return;
  }
  for (int i = 0; i < rejected_count; i++) {
    if (rejected[i].promise != identity) continue;
    qjs_free_value(rejected[i].reason);
    rejected[i] = rejected[--rejected_count];
    return;
  }
}

// Scripts are one text; they import nothing.
char* EXPORT(host_module_normalize)(const char* base, const char* name) {
  (void)base, (void)name;
  return NULL;
}
char* EXPORT(host_module_load)(const char* name, size_t* size) {
  (void)name, (void)size;
  return NULL;
}

// ---- the program ----------------------------------------------------------------------------------------------------

static const char prelude[] =
    "(() => {"
    "  const { $s: string, $b: bytes, $o: write, $e: log, $a: writeArray, $v: variables } = globalThis;"
    "  for (const name of ['$s', '$b', '$o', '$e', '$a', '$v']) delete globalThis[name];"
    "  const line = (values) => values.map(String).join(' ') + '\\n';"
    "  globalThis.Spore = {"
    "    input: () => string(),"
    "    inputBytes: () => bytes(),"
    "    env() {"
    "      const env = Object.create(null);"
    "      for (const variable of variables().split('\\0').slice(0, -1)) {"
    "        const equals = variable.indexOf('=');"
    "        const name = variable.slice(0, equals);"
    "        if (!(name in env)) env[name] = variable.slice(equals + 1);"
    "      }"
    "      return env;"
    "    },"
    "    output(x) {"
    "      if (typeof x === 'string') write(x);"
    "      else if (x instanceof Uint8Array) writeArray(x);"
    "      else throw new TypeError('Spore.output takes a string or a Uint8Array');"
    "    },"
    "  };"
    "  globalThis.print = (...values) => write(line(values));"
    "  const console = {};"
    "  for (const name of ['log', 'error', 'warn', 'info', 'debug'])"
    "    console[name] = (...values) => log(line(values));"
    "  globalThis.console = console;"
    "})()";

static void define(Value* global, const char* property, const char* name) {
  Value* function = qjs_new_host_function(name, 1, 0);
  qjs_set_prop_string(global, property, function);
  qjs_free_value(function);
}

static const char* script_of(void) {
  uint32_t count = 0, size = 0;
  if (args_sizes_get(&count, &size) != 0) fail("quickjs: no arguments\n");
  char** arguments = allocate((count + 1) * sizeof(char*));
  if (args_get(arguments, allocate(size + 1)) != 0) fail("quickjs: no arguments\n");
  if (count != 3 || arguments[1][0] != '-' || arguments[1][1] != 'e' || arguments[1][2] != '\0') {
    write_text(kStderr, "usage: quickjs.wasm -e SCRIPT\n");
    proc_exit(2);
  }
  return arguments[2];
}

void EXPORT(_start)(void) {
  const char* script = (_initialize(), script_of());
  if (qjs_init() != 0) fail("quickjs: cannot start\n");
  Value* global = qjs_get_global();
  define(global, "$s", "s");
  define(global, "$b", "b");
  define(global, "$o", "o");
  define(global, "$e", "e");
  define(global, "$a", "a");
  define(global, "$v", "v");
  Value* done = qjs_eval(prelude, sizeof(prelude) - 1, "prelude", kEvalGlobal);
  check(done);
  qjs_free_value(done);

  qjs_set_promise_rejection_handler(1);
  Value* promise = qjs_eval(script, length_of(script), "script", kEvalAsync);
  check(promise);
  while (qjs_is_job_pending()) {
    if (qjs_execute_pending_job() < 0) uncaught(qjs_get_exception());
  }
  const int state = qjs_promise_state(promise);
  if (state == kRejected) uncaught(qjs_promise_result(promise));
  if (rejected_count > 0) uncaught(rejected[0].reason);
  if (state == kPending) fail("quickjs: the script awaits something that never comes\n");
}
