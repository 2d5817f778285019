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
//   Spore.call(name, input)      begins a call of another function, with a string or a Uint8Array; it throws, or gives
//     .wait(ms)                  waits for its end, without ms as long as this call may: 0, its exit code, minus an
//                                error number (-6: it still runs)
//     .result(), .resultBytes()  wait for its end and give its output, a string or a Uint8Array; throw where it failed
//     .output(), .outputBytes()  the same of one that has ended, whatever its exit code
//     .message()                 what went wrong, in words
//     .cancel(), .close()        end it; give it back, which ends it too
//   Spore.awaitAny(calls, ms)    waits until one of them has ended: its position; minus an error number
//   Spore.map(name, inputs)      calls it once with each input, all at the same time: their outputs, as strings
//   Spore.callDetached(name, input)  a durable call, which nobody awaits and which outlives this one: its id
//   print(...)           appends its arguments and a newline to the output
//   console.log(...)     and .error, .warn, .info, .debug: a line in the call's log
// A script may use await at its top level. What it throws and does not catch, also in a promise, ends the call with
// exit code 1 and its stack in the log.
#include <stddef.h>
#include <stdint.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))
#define SPORE(name) __attribute__((import_module("spore"), import_name(#name)))
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
SPORE(call) int64_t spore_call(const void* name, uint32_t name_bytes, const void* input, uint32_t input_bytes);
SPORE(call_detached)
int64_t spore_call_detached(const void* name, uint32_t name_bytes, const void* input, uint32_t input_bytes, char* id);
SPORE(call_await) int64_t spore_call_await(uint32_t handle, uint32_t timeout_ms);
SPORE(call_await_any) int64_t spore_call_await_any(const void* handles, uint32_t count, uint32_t timeout_ms);
SPORE(call_output_size) int64_t spore_call_output_size(uint32_t handle);
SPORE(call_output_read) int64_t spore_call_output_read(uint32_t handle, uint64_t offset, void* to, uint32_t size_bytes);
SPORE(call_message) int64_t spore_call_message(uint32_t handle, char* to, uint32_t size_bytes);
SPORE(call_cancel) int64_t spore_call_cancel(uint32_t handle);
SPORE(call_close) int64_t spore_call_close(uint32_t handle);

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
Value* QUICKJS(qjs_new_number)(double number);
double QUICKJS(qjs_get_float64)(Value* value);
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

// The bytes of a typed array, which has them as long as it lives and nothing else runs.
static Buffer bytes_of(Value* array) {
  size_t offset = 0, size = 0, element_bytes = 0, buffer_size = 0;
  Value* buffer = qjs_get_typed_array_buffer(array, &offset, &size, &element_bytes);
  uint8_t* bytes = qjs_get_array_buffer(buffer, &buffer_size);
  qjs_free_value(buffer);
  if (!bytes || offset > buffer_size || size > buffer_size - offset) return (Buffer){NULL, 0};
  return (Buffer){bytes + offset, size};
}

static void write_array(uint32_t fd, Value* array) {
  const Buffer bytes = bytes_of(array);
  write_bytes(fd, bytes.bytes, bytes.size);
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

// ---- calls of other functions ---------------------------------------------------------------------------------------

// `name` is "c" (a durable one: "d"), the arguments a name and a Uint8Array: a handle, an id, or minus an error number.
static Value* begin_call(char name, Value** arguments) {
  size_t size = 0;
  const char* function = qjs_get_string_len(arguments[0], &size);
  if (!function) return qjs_get_undefined();
  const Buffer input = bytes_of(arguments[1]);
  char id[32];
  const int64_t begun = name == 'c' ? spore_call(function, size, input.bytes, input.size)
                                    : spore_call_detached(function, size, input.bytes, input.size, id);
  qjs_free_cstring(function);
  return name == 'd' && begun == 0 ? qjs_new_string(id, sizeof(id)) : qjs_new_number((double)begun);
}

static Value* output_of(uint32_t handle) {
  const int64_t size = spore_call_output_size(handle);
  if (size < 0) return qjs_new_number((double)size);
  uint8_t* bytes = allocate((size_t)size + 1);
  spore_call_output_read(handle, 0, bytes, (uint32_t)size);
  Value* array = qjs_new_uint8_array(bytes, (size_t)size);
  wasm_free(bytes);
  return array;
}

static Value* message_of(uint32_t handle) {
  static char text[1024];
  const int64_t size = spore_call_message(handle, text, sizeof(text));
  return qjs_new_string(text, size < 0 ? 0 : (size_t)size);
}

static Value* text_of(Value* array) {
  const Buffer bytes = bytes_of(array);
  return qjs_new_string((const char*)bytes.bytes, bytes.size);
}

static Value* bytes_of_text(Value* text) {
  size_t size = 0;
  const char* bytes = qjs_get_string_len(text, &size);
  if (!bytes) return qjs_get_undefined();
  Value* array = qjs_new_uint8_array((const uint8_t*)bytes, size);
  qjs_free_cstring(bytes);
  return array;
}

// The prelude gives them numbers that are handles and times.
static Value* on_call(char name, Value** arguments) {
  const uint32_t handle = (uint32_t)qjs_get_float64(arguments[0]);
  switch (name) {
    case 'w': return qjs_new_number((double)spore_call_await(handle, (uint32_t)qjs_get_float64(arguments[1])));
    case 'r': return output_of(handle);
    case 'm': return message_of(handle);
    case 'k': return qjs_new_number((double)spore_call_cancel(handle));
    default: return qjs_new_number((double)spore_call_close(handle));
  }
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
  if (name_size == 1 && count == 2) {
    if (name[0] == 'c' || name[0] == 'd') return begin_call(name[0], arguments);
    if (name[0] == 'n') {
      const Buffer handles = bytes_of(arguments[0]);
      const uint32_t timeout_ms = (uint32_t)qjs_get_float64(arguments[1]);
      return qjs_new_number((double)spore_call_await_any(handles.bytes, handles.size / 4, timeout_ms));
    }
    return on_call(name[0], arguments);
  }
  if (name_size == 1 && count == 1 && name[0] == 't') return text_of(arguments[0]);
  if (name_size == 1 && count == 1 && name[0] == 'u') return bytes_of_text(arguments[0]);
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
    "  const { $s: string, $b: bytes, $o: write, $e: log, $a: writeArray, $v: variables, $c: begin, $d: detach, $w: "
    "wait,"
    "    $n: waitAny, $r: output, $m: message, $k: cancel, $x: close, $t: text, $u: utf8 } = globalThis;"
    "  for (const name of '$s $b $o $e $a $v $c $d $w $n $r $m $k $x $t $u'.split(' ')) delete globalThis[name];"
    "  const line = (values) => values.map(String).join(' ') + '\\n';"
    "  const forever = 2 ** 32 - 1, again = -6;"
    "  const time = (ms) => ms === undefined ? forever : Math.min(Math.max(Number(ms) || 0, 0), forever);"
    "  const inputOf = (x) => x instanceof Uint8Array ? x : utf8(String(x));"
    "  const errorOf = (name, code, text) =>"
    "    Object.assign(new Error(name + ': ' + (text || 'error ' + -code)), { code });"
    "  const checked = (name, handle) => { if (handle < 0) throw errorOf(name, handle, ''); return handle; };"
    "  class Call {"
    "    #name; #handle;"
    "    constructor(name, handle) { this.#name = name; this.#handle = handle; }"
    "    get handle() { return this.#handle; }"
    "    wait(ms) { return wait(this.#handle, time(ms)); }"
    "    outputBytes() {"
    "      const bytes = output(this.#handle, 0);"
    "      if (typeof bytes === 'number') throw errorOf(this.#name, bytes, '');"
    "      return bytes;"
    "    }"
    "    output() { return text(this.outputBytes()); }"
    "    message() { return message(this.#handle, 0); }"
    "    resultBytes() {"
    "      const code = this.wait();"
    "      if (code !== 0) throw errorOf(this.#name, code, this.message());"
    "      return this.outputBytes();"
    "    }"
    "    result() { return text(this.resultBytes()); }"
    "    cancel() { cancel(this.#handle, 0); }"
    "    close() { close(this.#handle, 0); }"
    "  }"
    "  globalThis.Spore = {"
    "    call(name, input = '') {"
    "      name = String(name);"
    "      return new Call(name, checked(name, begin(name, inputOf(input))));"
    "    },"
    "    callDetached(name, input = '') {"
    "      const id = detach(String(name), inputOf(input));"
    "      return typeof id === 'number' ? checked(name, id) : id;"
    "    },"
    "    awaitAny: (calls, ms) => waitAny(Uint32Array.from(calls, (call) => call.handle), time(ms)),"
    "    map(name, inputs) {"
    "      name = String(name);"
    "      const calls = [];"
    "      let waited = 0;"
    "      for (const input of inputs) {"
    "        const bytes = inputOf(input);"
    "        let handle = begin(name, bytes);"
    "        for (; handle === again && waited < calls.length; handle = begin(name, bytes)) calls[waited++].wait();"
    "        calls.push(new Call(name, checked(name, handle)));"
    "      }"
    "      return calls.map((call) => { const result = call.result(); call.close(); return result; });"
    "    },"
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
  for (const char* name = "sboeavcdwnrmkxtu"; *name; name++) {
    const char property[] = {'$', *name, '\0'}, function[] = {*name, '\0'};
    define(global, property, function);
  }
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
