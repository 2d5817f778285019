// State for functions written in C++: values as views of memory, and the objects that functions share by them.
//
//   #include <spore_state.hpp>
//
//   SPORE_FUNCTION {
//     auto visits = spore::Counter::open("visits");
//     if (!visits) return visits.error();
//     visits->add(1);
//     return visits->push().error();  // from here on other hosts may see it
//   }
//
//                      one value                          what a push does        who may use it at once
//   State              bytes under a key                  publishes               -
//   Counter            an integer                         adds                    everybody
//   Array<T>           elements of a fixed number         publishes whole pages   who writes to pages of his own
//   AsyncArray<T>      numbers, pushed every n updates    adds                    everybody
//   Matrix<T>          dense, by columns                  publishes whole pages   who writes to pages of his own
//   SparseMatrix<T>    CSC, made once, read by columns    publishes               readers
//   Dict               text -> bytes, a log of changes    (each change at once)   everybody
//   List<T>            elements that are appended         (each append at once)   everybody
//
// Functions of one host share a value's bytes in memory; other hosts see them after a push there and a pull of their
// own (docs/state-objects.md has each object's promises). Objects are handles: copying one copies no state, and all of
// them end with the call.
//
// Errors are values: Status, and Expected<T> for what gives something back, with an error number of <errno.h> as
// spore.h lists them. The call's log says more. Needs C++20, and neither exceptions nor RTTI.
#pragma once

#include <errno.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <span>
#include <spore.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace spore {

// ---- errors ---------------------------------------------------------------------------------------------------------

// What failed() gives, and every Status and Expected can be made of.
struct Failed {
  int error = 0;
};

// Whether something worked: error() is 0, or an error number.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Failed failed) : error_(failed.error) {}
  explicit operator bool() const { return error_ == 0; }
  int error() const { return error_; }

 private:
  int error_ = 0;
};

// A T, or an error number. `*` and `->` only where there is a T; they end the call where there is none.
template <class T>
class [[nodiscard]] Expected {
 public:
  Expected(T value) : value_(std::move(value)) {}
  Expected(Failed failed) : error_(failed.error) {}
  explicit operator bool() const { return value_.has_value(); }
  int error() const { return error_; }
  Failed failed() const { return {error_}; }

  T& operator*() { return checked(); }
  const T& operator*() const { return const_cast<Expected*>(this)->checked(); }
  T* operator->() { return &checked(); }
  const T* operator->() const { return &const_cast<Expected*>(this)->checked(); }

 private:
  T& checked() {
    if (!value_) __builtin_trap();
    return *value_;
  }
  std::optional<T> value_;
  int error_ = 0;
};

// ---- a value --------------------------------------------------------------------------------------------------------

struct StateRange {
  uint64_t offset = 0;
  uint64_t size_bytes = 0;  // 0: to the end
};

enum class MergeOp : uint32_t { kOverwrite, kSum, kMin, kMax };

// The kind of element that pushes of T's merge by.
template <class T>
concept Mergeable = (std::is_integral_v<T> || std::is_floating_point_v<T>) && (sizeof(T) == 4 || sizeof(T) == 8);
template <Mergeable T>
constexpr uint32_t kElementOf =
    std::is_integral_v<T> ? (sizeof(T) == 4 ? SPORE_I32 : SPORE_I64) : (sizeof(T) == 4 ? SPORE_F32 : SPORE_F64);

struct LockOptions {
  bool write = true;    // alone, else with others that read
  bool global = false;  // among the calls of all hosts, else of this one
  uint32_t timeout_ms = 10'000;
};

// A lock that is held: given back when this goes, at the latest when the call ends.
class StateLock {
 public:
  StateLock(StateLock&& other) : key_(std::move(other.key_)), flags_(other.flags_), poisoned_(other.poisoned_) {
    other.key_.clear();
  }
  StateLock& operator=(StateLock&& other) {
    std::swap(key_, other.key_);
    std::swap(flags_, other.flags_);
    std::swap(poisoned_, other.poisoned_);
    return *this;
  }
  ~StateLock() { (void)unlock(); }
  // The last who held it for writing died with it: what it guards may be half changed.
  bool poisoned() const { return poisoned_; }
  // ENOENT: it is not held any more.
  Status unlock() {
    if (key_.empty()) return Failed{ENOENT};
    const int64_t result = spore_state_unlock(key_.data(), static_cast<uint32_t>(key_.size()), flags_);
    key_.clear();
    return result < 0 ? Status(Failed{static_cast<int>(-result)}) : Status();
  }

 private:
  friend class State;
  StateLock(std::string key, uint32_t flags, bool poisoned)
      : key_(std::move(key)), flags_(flags), poisoned_(poisoned) {}
  std::string key_;  // empty: no longer held
  uint32_t flags_;
  bool poisoned_;
};

// A state value, by its key (1 to 512 bytes of UTF-8). There need be none of that key yet.
class State {
 public:
  explicit State(std::string key) : key_(std::move(key)) {}
  const std::string& key() const { return key_; }

  // The value in memory: shared with everybody on this host who maps it, until the call ends or unmap(). Makes one of
  // that many zeros where there is none; EINVAL where it has another size. 0: as large as it is, ENOENT where there is
  // none. Whole chunks of 256 KiB are fetched when they are first touched.
  Expected<std::span<std::byte>> map(uint64_t size_bytes = 0) const {
    const auto mapped = map_as(size_bytes, 0);
    if (!mapped) return mapped.failed();
    return std::span(static_cast<std::byte*>(mapped->first), static_cast<size_t>(mapped->second));
  }
  // The same where writing to it ends the call.
  Expected<std::span<const std::byte>> map_read_only() const {
    const auto mapped = map_as(0, SPORE_STATE_READ_ONLY);
    if (!mapped) return mapped.failed();
    return std::span(static_cast<const std::byte*>(mapped->first), static_cast<size_t>(mapped->second));
  }
  Status unmap() const { return status(spore_state_unmap(key_.data(), length())); }

  // Copies, without mapping. read() gives fewer bytes than asked for at the value's end; write() is all or EFBIG.
  Expected<size_t> read(uint64_t offset, std::span<std::byte> to) const {
    return number<size_t>(
        spore_state_read(key_.data(), length(), offset, to.data(), static_cast<uint32_t>(to.size_bytes())));
  }
  Status write(uint64_t offset, std::span<const std::byte> from) const {
    return status(
        spore_state_write(key_.data(), length(), offset, from.data(), static_cast<uint32_t>(from.size_bytes())));
  }
  // Puts the bytes behind the value's end, for everybody at once; makes it where there is none. Their offset.
  Expected<uint64_t> append(std::span<const std::byte> bytes) const {
    return number<uint64_t>(
        spore_state_append(key_.data(), length(), bytes.data(), static_cast<uint32_t>(bytes.size_bytes())));
  }

  Expected<uint64_t> size() const { return number<uint64_t>(spore_state_size(key_.data(), length())); }
  Status resize(uint64_t size_bytes) const { return status(spore_state_resize(key_.data(), length(), size_bytes)); }
  // Everywhere, at once.
  Status remove() const { return status(spore_state_delete(key_.data(), length())); }

  // Publishes what has changed on this host in the pages of 4 KiB that the range touches.
  Status push(StateRange range = {}) const {
    return status(spore_state_push(key_.data(), length(), range.offset, range.size_bytes));
  }
  // Takes over the newest version, and fetches the range. What is not pushed yet stays.
  Status pull(StateRange range = {}) const {
    return status(spore_state_pull(key_.data(), length(), range.offset, range.size_bytes));
  }

  // That this host has; number 0: never pushed.
  using Version = struct ::spore_state_version;
  Expected<Version> version() const {
    Version version{};
    if (const auto told = status(spore_state_version(key_.data(), length(), &version)); !told)
      return Failed{told.error()};
    return version;
  }
  // Publishes if nobody has pushed since that version, else EAGAIN.
  Status push_if(const Version& version) const { return status(spore_state_push_if(key_.data(), length(), &version)); }

  // From now on, on this host, pushes merge. What was written before must be pushed, else ESTALE.
  template <Mergeable T>
  Status merge(MergeOp op) const {
    return status(spore_state_merge(key_.data(), length(), static_cast<uint32_t>(op), kElementOf<T>));
  }

  // Waits for the lock of this key; there need be no value. ETIMEDOUT; EDEADLK: this call, or one that waits for it,
  // holds it. Pushes made under a global lock that was lost meanwhile are refused: ESTALE.
  Expected<StateLock> lock(LockOptions options = {}) const {
    const uint32_t flags = (options.write ? SPORE_LOCK_WRITE : 0) | (options.global ? SPORE_LOCK_GLOBAL : 0);
    const int64_t result = spore_state_lock(key_.data(), length(), flags, options.timeout_ms);
    if (result < 0) return Failed{static_cast<int>(-result)};
    return StateLock(key_, flags, result == 1);
  }

 private:
  static constexpr int kRoundsMax = 16;

  uint32_t length() const { return static_cast<uint32_t>(key_.size()); }
  static Status status(int64_t result) { return result < 0 ? Status(Failed{static_cast<int>(-result)}) : Status(); }
  template <class T>
  static Expected<T> number(int64_t result) {
    if (result < 0) return Failed{static_cast<int>(-result)};
    return static_cast<T>(result);
  }
  Expected<std::pair<void*, uint64_t>> map_as(uint64_t size_bytes, uint32_t flags) const {
    for (int round = 0;; ++round) {
      uint64_t size = size_bytes;
      if (size == 0) {
        const auto now = this->size();
        if (!now) return now.failed();
        size = *now;
      }
      const int64_t at = size == 0 ? -EINVAL : spore_state_map_(key_.data(), length(), size, flags);
      if (at >= 0) return std::pair(reinterpret_cast<void*>(static_cast<uintptr_t>(at)), size);
      // Somebody may have changed its size since it was asked for.
      if (at != -EINVAL || size_bytes != 0 || size == 0 || round == kRoundsMax) return Failed{static_cast<int>(-at)};
    }
  }

  std::string key_;
};

// The tenant's keys that begin with the prefix, sorted; those too that nobody has pushed yet. A thousand keys a time
// may come and go meanwhile.
inline Expected<std::vector<std::string>> state_keys(std::string_view prefix = {}) {
  std::vector<std::string> keys;
  std::string page(16 << 10, '\0');
  for (;;) {
    const std::string_view after = keys.empty() ? std::string_view() : keys.back();
    const int64_t bytes =
        spore_state_list(prefix.data(), static_cast<uint32_t>(prefix.size()), after.data(),
                         static_cast<uint32_t>(after.size()), page.data(), static_cast<uint32_t>(page.size()));
    if (bytes < 0) return Failed{static_cast<int>(-bytes)};
    if (bytes == 0) return keys;
    for (const char* key = page.data(); key < page.data() + bytes; key += keys.back().size() + 1)
      keys.emplace_back(key);
  }
}

// ---- numbers that everybody adds to ---------------------------------------------------------------------------------

namespace detail {

// Adds that meet those of other functions on this host: atomic instructions, whatever the function is compiled with.
template <class T>
__attribute__((target("atomics"), noinline)) inline void atomic_add(T* to, T by) {
  __atomic_fetch_add(to, by, __ATOMIC_SEQ_CST);
}
template <class T>
__attribute__((target("atomics"), noinline)) inline T atomic_load(const T* from) {
  return __atomic_load_n(from, __ATOMIC_SEQ_CST);
}

}  // namespace detail

// An integer of 64 bits that wraps. add() is atomic among the functions of a host; push() adds to the global value what
// was added on this host since the last push, once, whoever added it. value() is what this host knows: the global value
// at the last pull and everything that was added here.
class Counter {
 public:
  // Makes it, at 0, where there is none.
  static Expected<Counter> open(std::string key) {
    State state(std::move(key));
    const auto bytes = state.map(sizeof(int64_t));
    if (!bytes) return bytes.failed();
    if (const auto merges = state.merge<int64_t>(MergeOp::kSum); !merges) return Failed{merges.error()};
    return Counter(std::move(state), reinterpret_cast<int64_t*>(bytes->data()));
  }
  void add(int64_t by) { detail::atomic_add(value_, by); }
  int64_t value() const { return detail::atomic_load(value_); }
  Status push() { return state_.push(); }
  Status pull() { return state_.pull(); }
  const State& state() const { return state_; }

 private:
  Counter(State state, int64_t* value) : state_(std::move(state)), value_(value) {}
  State state_;
  int64_t* value_;
};

// ---- arrays ---------------------------------------------------------------------------------------------------------

// What can lie in state: bytes that mean the same in every function. No pointers, in particular.
template <class T>
concept StateElement = std::is_trivially_copyable_v<T> && !std::is_pointer_v<std::remove_cv_t<T>>;

// `size()` elements in mapped memory. Pushes are of whole pages of 4 KiB, the last to push a page wins: let functions
// on different hosts write to different pages (with T's of 8 bytes: to ranges that begin at multiples of 512).
template <StateElement T>
class Array {
 public:
  // Makes it, of zeros, where there is none; EINVAL where it has another length.
  static Expected<Array> create(std::string key, size_t count) {
    if (count == 0 || count > SIZE_MAX / sizeof(T)) return Failed{EINVAL};
    return of(State(std::move(key)), uint64_t{count} * sizeof(T));
  }
  // As long as it is; ENOENT where there is none.
  static Expected<Array> open(std::string key) { return of(State(std::move(key)), 0); }

  size_t size() const { return elements_.size(); }
  T& operator[](size_t index) { return elements_[index]; }
  const T& operator[](size_t index) const { return elements_[index]; }
  std::span<T> span() { return elements_; }
  std::span<const T> span() const { return elements_; }
  T* begin() { return elements_.data(); }
  T* end() { return elements_.data() + elements_.size(); }
  const T* begin() const { return elements_.data(); }
  const T* end() const { return elements_.data() + elements_.size(); }

  Status push() { return state_.push(); }
  Status pull() { return state_.pull(); }
  // Of these elements alone: the pages that they touch.
  Status push(size_t first, size_t count) { return count == 0 ? Status() : state_.push(range(first, count)); }
  Status pull(size_t first, size_t count) { return count == 0 ? Status() : state_.pull(range(first, count)); }
  const State& state() const { return state_; }

 private:
  Array(State state, std::span<T> elements) : state_(std::move(state)), elements_(elements) {}
  static Expected<Array> of(State state, uint64_t size_bytes) {
    const auto bytes = state.map(size_bytes);
    if (!bytes) return bytes.failed();
    if (bytes->size() % sizeof(T) != 0) return Failed{EINVAL};
    return Array(std::move(state), std::span(reinterpret_cast<T*>(bytes->data()), bytes->size() / sizeof(T)));
  }
  static StateRange range(size_t first, size_t count) {
    return {uint64_t{first} * sizeof(T), uint64_t{count} * sizeof(T)};
  }
  State state_;
  std::span<T> elements_;
};

struct AsyncOptions {
  uint32_t push_every = 1024;  // updates of this object; 0: never by itself
  bool pull_too = false;       // after each push of its own, so that this host sees what the others added
};

// An array of numbers to which everybody adds, and which pushes itself every so many updates: weights in the style of
// HOGWILD. A push adds to the global value what was added on this host.
//
// Integers are added atomically. Sums of floating point are plain loads and stores: where two functions of one host add
// to one element at the same moment, one of both may be lost, as may adds that meet a pull on their host (pull_too does
// that). What a push took from memory arrives once.
template <Mergeable T>
class AsyncArray {
 public:
  // Makes it, of zeros, where there is none; EINVAL where it has another length. ESTALE: there are elements that were
  // written otherwise, and not pushed.
  static Expected<AsyncArray> create(std::string key, size_t count, AsyncOptions options = {}) {
    auto array = Array<T>::create(std::move(key), count);
    if (!array) return array.failed();
    if (const auto merges = array->state().template merge<T>(MergeOp::kSum); !merges) return Failed{merges.error()};
    return AsyncArray(std::move(*array), options);
  }
  static Expected<AsyncArray> open(std::string key, AsyncOptions options = {}) {
    auto array = Array<T>::open(std::move(key));
    if (!array) return array.failed();
    if (const auto merges = array->state().template merge<T>(MergeOp::kSum); !merges) return Failed{merges.error()};
    return AsyncArray(std::move(*array), options);
  }

  size_t size() const { return array_.size(); }
  const T& operator[](size_t index) const { return array_[index]; }
  std::span<const T> span() const { return array_.span(); }

  // One update. An error of the push that it may bring about is kept for flush().
  void add(size_t index, T by) {
    if constexpr (std::is_integral_v<T>)
      detail::atomic_add(&array_[index], by);
    else
      array_[index] += by;
    if (++unpushed_ != options_.push_every) return;
    unpushed_ = 0;
    keep(array_.push());
    if (options_.pull_too) keep(array_.pull());
  }
  // Pushes what is left. The first error since the last flush.
  Status flush() {
    unpushed_ = 0;
    keep(array_.push());
    return std::exchange(status_, Status());
  }
  Status pull() { return array_.pull(); }
  const State& state() const { return array_.state(); }

 private:
  AsyncArray(Array<T> array, AsyncOptions options) : array_(std::move(array)), options_(options) {}
  void keep(Status status) {
    if (status_) status_ = status;
  }
  Array<T> array_;
  AsyncOptions options_;
  uint32_t unpushed_ = 0;
  Status status_;
};

// ---- matrices -------------------------------------------------------------------------------------------------------

namespace detail {

// The first 64 bytes of a matrix; all little endian.
struct MatrixHeader {
  char magic[8];
  uint32_t element_bytes;
  uint32_t unused;
  uint64_t rows, columns;
  uint64_t nonzeros;  // of a sparse one
  uint64_t more[3];
};
static_assert(sizeof(MatrixHeader) == 64);
constexpr char kDenseMagic[8] = {'S', 'p', 'o', 'r', 'e', 'M', 'a', 't'};
constexpr char kSparseMagic[8] = {'S', 'p', 'o', 'r', 'e', 'C', 'S', 'C'};
constexpr uint64_t kValueBytesMax = (4ull << 30) - (64 << 10);

// Whether a value of that size begins with a header of that kind. Reads no more than the header.
inline Expected<MatrixHeader> read_header(const State& state, const char (&magic)[8], size_t element_bytes) {
  MatrixHeader header{};
  const auto got = state.read(0, std::as_writable_bytes(std::span(&header, 1)));
  if (!got) return got.failed();
  if (*got != sizeof(header) || std::memcmp(header.magic, magic, sizeof(magic)) != 0 ||
      header.element_bytes != element_bytes)
    return Failed{EINVAL};
  return header;
}

}  // namespace detail

// A dense matrix, column after column, in one value behind a header of 64 bytes. Matrix<const T> maps it read-only.
// Opening one fetches its header; columns come, in chunks of 256 KiB, when they are touched. Writing as for Array:
// pushes are of whole pages, and neighbouring columns may share one.
template <StateElement T>
class Matrix {
 public:
  // Makes it, of zeros, where there is none; EINVAL where the value is something else.
  static Expected<Matrix> create(std::string key, size_t rows, size_t columns)
    requires(!std::is_const_v<T>)
  {
    State state(std::move(key));
    const auto size = size_of(rows, columns);
    if (!size) return Failed{EINVAL};
    const auto bytes = state.map(*size);
    if (!bytes) return bytes.failed();
    detail::MatrixHeader header{};
    std::memcpy(&header, bytes->data(), sizeof(header));
    if (header.rows == 0) {
      std::memcpy(header.magic, detail::kDenseMagic, sizeof(header.magic));
      header.element_bytes = sizeof(T);
      header.rows = rows;
      header.columns = columns;
      std::memcpy(bytes->data(), &header, sizeof(header));
    } else if (std::memcmp(header.magic, detail::kDenseMagic, sizeof(header.magic)) != 0 ||
               header.element_bytes != sizeof(T) || header.rows != rows || header.columns != columns) {
      return Failed{EINVAL};
    }
    return Matrix(std::move(state), bytes->data(), rows, columns);
  }
  static Expected<Matrix> open(std::string key) {
    State state(std::move(key));
    const auto header = detail::read_header(state, detail::kDenseMagic, sizeof(T));
    if (!header) return header.failed();
    const auto size = size_of(header->rows, header->columns);
    const auto map = [&] {
      if constexpr (std::is_const_v<T>)
        return state.map_read_only();
      else
        return state.map();
    };
    const auto bytes = map();
    if (!bytes) return bytes.failed();
    if (size != bytes->size()) return Failed{EINVAL};
    return Matrix(std::move(state), bytes->data(), static_cast<size_t>(header->rows),
                  static_cast<size_t>(header->columns));
  }

  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  std::span<T> column(size_t column) const { return {elements_ + column * rows_, rows_}; }
  T& operator()(size_t row, size_t column) const { return elements_[column * rows_ + row]; }

  Status push() const { return state_.push(); }
  Status pull() const { return state_.pull(); }
  // Of these columns alone; pushing, the header too, which a reader elsewhere needs.
  Status push(size_t first, size_t count) const {
    if (const auto pushed = state_.push({0, sizeof(detail::MatrixHeader)}); !pushed) return pushed;
    return count == 0 ? Status() : state_.push(range(first, count));
  }
  Status pull(size_t first, size_t count) const { return count == 0 ? Status() : state_.pull(range(first, count)); }
  const State& state() const { return state_; }

 private:
  template <class Byte>
  Matrix(State state, Byte* bytes, size_t rows, size_t columns)
      : state_(std::move(state)),
        elements_(reinterpret_cast<T*>(bytes + sizeof(detail::MatrixHeader))),
        rows_(rows),
        columns_(columns) {}
  static std::optional<uint64_t> size_of(uint64_t rows, uint64_t columns) {
    constexpr uint64_t kElementsMax = (detail::kValueBytesMax - sizeof(detail::MatrixHeader)) / sizeof(T);
    if (rows == 0 || columns == 0 || rows > kElementsMax / columns) return std::nullopt;
    return sizeof(detail::MatrixHeader) + rows * columns * sizeof(T);
  }
  StateRange range(size_t first, size_t count) const {
    return {sizeof(detail::MatrixHeader) + uint64_t{first} * rows_ * sizeof(T), uint64_t{count} * rows_ * sizeof(T)};
  }
  State state_;
  T* elements_;
  size_t rows_, columns_;
};

// A sparse matrix in compressed columns, in one value: a header of 64 bytes, where each column begins (columns + 1 of
// 32 bits), the row of each element (32 bits), the elements; each part begins at a multiple of 8. Made once, and read
// from then on: opening one fetches its header, using a column the chunks of 256 KiB that have it.
template <StateElement T>
class SparseMatrix {
 public:
  struct Column {
    std::span<const uint32_t> rows;  // sorted as they were given
    std::span<const T> values;
    size_t size() const { return rows.size(); }
  };
  // Column i has the elements [begins[i], begins[i + 1]) of `row_of` and `values`.
  struct Parts {
    size_t rows = 0;
    std::span<const uint32_t> begins;  // columns + 1, from 0, not falling, up to the number of elements
    std::span<const uint32_t> row_of;  // each less than `rows`
    std::span<const T> values;
  };

  // Writes the matrix; push() publishes it. EINVAL where the parts do not fit together, and where there is a value of
  // another size (remove that first).
  static Expected<SparseMatrix> create(std::string key, const Parts& parts) {
    const size_t nonzeros = parts.values.size();
    if (parts.rows == 0 || parts.begins.size() < 2 || parts.begins.front() != 0 || parts.begins.back() != nonzeros ||
        parts.row_of.size() != nonzeros)
      return Failed{EINVAL};
    for (size_t i = 1; i < parts.begins.size(); ++i)
      if (parts.begins[i] < parts.begins[i - 1]) return Failed{EINVAL};
    for (const uint32_t row : parts.row_of)
      if (row >= parts.rows) return Failed{EINVAL};
    const auto layout = Layout::of(parts.begins.size() - 1, nonzeros);
    if (!layout) return Failed{EINVAL};
    State state(std::move(key));
    const auto bytes = state.map(layout->size_bytes);
    if (!bytes) return bytes.failed();
    detail::MatrixHeader header{};
    header.element_bytes = sizeof(T);
    header.rows = parts.rows;
    header.columns = parts.begins.size() - 1;
    header.nonzeros = nonzeros;
    std::memcpy(header.magic, detail::kSparseMagic, sizeof(header.magic));
    std::memcpy(bytes->data(), &header, sizeof(header));
    std::memcpy(bytes->data() + sizeof(header), parts.begins.data(), parts.begins.size_bytes());
    if (nonzeros > 0) {
      std::memcpy(bytes->data() + layout->row_of, parts.row_of.data(), parts.row_of.size_bytes());
      std::memcpy(bytes->data() + layout->values, parts.values.data(), parts.values.size_bytes());
    }
    return SparseMatrix(std::move(state), bytes->data(), header, *layout);
  }
  static Expected<SparseMatrix> open(std::string key) {
    State state(std::move(key));
    const auto header = detail::read_header(state, detail::kSparseMagic, sizeof(T));
    if (!header) return header.failed();
    const auto layout = Layout::of(header->columns, header->nonzeros);
    const auto bytes = state.map_read_only();
    if (!bytes) return bytes.failed();
    if (!layout || layout->size_bytes != bytes->size()) return Failed{EINVAL};
    return SparseMatrix(std::move(state), bytes->data(), *header, *layout);
  }

  size_t rows() const { return rows_; }
  size_t columns() const { return begins_.size() - 1; }
  size_t nonzeros() const { return row_of_.size(); }
  // A value that was tampered with ends the call.
  Column column(size_t column) const {
    const size_t begin = begins_[column], end = begins_[column + 1];
    if (begin > end || end > row_of_.size()) __builtin_trap();
    return {row_of_.subspan(begin, end - begin), values_.subspan(begin, end - begin)};
  }

  Status push() const { return state_.push(); }
  Status pull() const { return state_.pull(); }
  const State& state() const { return state_; }

 private:
  struct Layout {
    uint64_t row_of, values, size_bytes;
    static std::optional<Layout> of(uint64_t columns, uint64_t nonzeros) {
      if (columns == 0 || columns >= UINT32_MAX || nonzeros > UINT32_MAX) return std::nullopt;
      const auto up = [](uint64_t bytes) { return (bytes + 7) & ~uint64_t{7}; };
      Layout layout{};
      layout.row_of = up(sizeof(detail::MatrixHeader) + (columns + 1) * sizeof(uint32_t));
      layout.values = up(layout.row_of + nonzeros * sizeof(uint32_t));
      layout.size_bytes = layout.values + nonzeros * sizeof(T);
      if (layout.size_bytes > detail::kValueBytesMax) return std::nullopt;
      return layout;
    }
  };
  SparseMatrix(State state, const std::byte* bytes, const detail::MatrixHeader& header, const Layout& layout)
      : state_(std::move(state)),
        rows_(static_cast<size_t>(header.rows)),
        begins_(reinterpret_cast<const uint32_t*>(bytes + sizeof(header)), static_cast<size_t>(header.columns) + 1),
        row_of_(reinterpret_cast<const uint32_t*>(bytes + layout.row_of), static_cast<size_t>(header.nonzeros)),
        values_(reinterpret_cast<const T*>(bytes + layout.values), static_cast<size_t>(header.nonzeros)) {}
  State state_;
  size_t rows_;
  std::span<const uint32_t> begins_, row_of_;
  std::span<const T> values_;
};

// ---- what grows -----------------------------------------------------------------------------------------------------

// Elements that are only ever appended, one behind the other in one value. An append is whole, at once and for
// everybody; all hosts see the same order, each a beginning of it that is as long as at its last pull (an append of its
// own pulls). There is nothing to push.
template <StateElement T>
class List {
 public:
  explicit List(std::string key) : state_(std::move(key)) {}

  // The element's index; of several, which stay together, the first's.
  Expected<uint64_t> append(const T& element) { return append(std::span(&element, 1)); }
  Expected<uint64_t> append(std::span<const T> elements) {
    const auto offset = state_.append(std::as_bytes(elements));
    if (!offset) return offset.failed();
    if (*offset % sizeof(T) != 0) return Failed{EBADMSG};  // the value is no list of these
    return *offset / sizeof(T);
  }
  // That this host knows; 0 too where there is no value.
  Expected<uint64_t> size() const {
    const auto bytes = state_.size();
    if (!bytes && bytes.error() == ENOENT) return uint64_t{0};
    if (!bytes) return bytes.failed();
    return *bytes / sizeof(T);
  }
  // EFBIG: behind the end.
  Expected<T> get(uint64_t index) const {
    T element;
    const auto got = read(index, std::span(&element, 1));
    if (!got) return got.failed();
    if (*got == 0) return Failed{EFBIG};
    return element;
  }
  // Copies elements from `first` on; how many, 0 at the end.
  Expected<size_t> read(uint64_t first, std::span<T> to) const {
    if (first > UINT64_MAX / sizeof(T)) return size_t{0};
    const auto got = state_.read(first * sizeof(T), std::as_writable_bytes(to));
    if (!got && got.error() == ENOENT) return size_t{0};
    if (!got) return got.failed();
    return *got / sizeof(T);
  }
  // What others have appended.
  Status pull() {
    const auto pulled = state_.pull();
    return pulled.error() == ENOENT ? Status() : pulled;
  }
  Status clear() {
    const auto removed = state_.remove();
    return removed.error() == ENOENT ? Status() : removed;
  }
  const State& state() const { return state_; }

 private:
  State state_;
};

// A dictionary: texts (up to 64 KiB) to bytes. Its value is a log of changes, each appended whole, at once and for
// everybody; what the dictionary holds is what comes of them one after the other. So all hosts agree on the order, no
// change is lost or torn, and the last one of a name wins; set_if() writes only over what its caller has seen.
//
// This object has the dictionary in its own memory: get() shows it as of the last pull() or change of its own. Opening
// reads the whole log, so compact() it, at a time when nobody else changes it: changes that meet that may be lost.
class Dict {
 public:
  // Names one state of an entry: it changes with every change. 0: there is no entry.
  using Stamp = uint64_t;
  struct Entry {
    std::string bytes;
    Stamp stamp = 0;
  };

  // There need be no value; it is made by the first change. EBADMSG: it is no dictionary.
  static Expected<Dict> open(std::string key) {
    Dict dict(std::move(key));
    if (const auto pulled = dict.pull(); !pulled) return Failed{pulled.error()};
    return dict;
  }

  size_t size() const { return entries_.size(); }
  // Null where there is none. Good until the next change or pull.
  const Entry* get(std::string_view name) const {
    const auto found = entries_.find(std::string(name));
    return found == entries_.end() ? nullptr : &found->second;
  }
  auto begin() const { return entries_.begin(); }  // pairs of name and Entry, in no order
  auto end() const { return entries_.end(); }

  Status set(std::string_view name, std::string_view bytes) { return change(kSet, name, bytes, 0); }
  Status erase(std::string_view name) { return change(kErase, name, {}, 0); }
  // Only where the entry's stamp is still that one (0: there is none), else EAGAIN; get() then shows what there is.
  Status set_if(std::string_view name, std::string_view bytes, Stamp stamp) {
    return change(kSetIf, name, bytes, stamp);
  }
  // Takes over what others have changed.
  Status pull() {
    const auto pulled = state_.pull();
    if (pulled.error() == ENOENT) {
      forget();
      return {};
    }
    return pulled ? replay() : pulled;
  }
  // Rewrites the log as one change that holds all entries. Stamps change.
  Status compact() {
    if (const auto pulled = pull(); !pulled) return pulled;
    std::string log;
    for (const auto& [name, entry] : entries_) write_record(log, kSet, name, entry.bytes, 0);
    if (const auto removed = state_.remove(); !removed && removed.error() != ENOENT) return removed;
    forget();
    if (log.empty()) return {};
    if (const auto appended = state_.append(std::as_bytes(std::span(log))); !appended) return Failed{appended.error()};
    return pull();
  }
  const State& state() const { return state_; }

 private:
  // The log is records of this header, the name, the bytes, and zeros up to a multiple of 8.
  struct Record {
    uint32_t kind;
    uint32_t name_bytes;
    uint64_t value_bytes;
    Stamp expected;
  };
  static_assert(sizeof(Record) == 24);
  static constexpr uint32_t kSet = 0x64731, kErase = 0x64732, kSetIf = 0x64733;
  static constexpr size_t kNameBytesMax = 64 << 10, kValueBytesMax = 1 << 30;
  static constexpr size_t kReadBytes = 256 << 10;

  explicit Dict(std::string key) : state_(std::move(key)) {}
  static size_t padded(size_t bytes) { return (bytes + 7) & ~size_t{7}; }
  static void write_record(std::string& to, uint32_t kind, std::string_view name, std::string_view bytes,
                           Stamp expected) {
    const Record record{kind, static_cast<uint32_t>(name.size()), bytes.size(), expected};
    to.append(reinterpret_cast<const char*>(&record), sizeof(record));
    to.append(name).append(bytes);
    to.resize(padded(to.size()));
  }
  void forget() {
    entries_.clear();
    replayed_ = 0;
    applied_ = false;
  }

  Status change(uint32_t kind, std::string_view name, std::string_view bytes, Stamp expected) {
    if (name.size() > kNameBytesMax || bytes.size() > kValueBytesMax) return Failed{EINVAL};
    std::string log;
    write_record(log, kind, name, bytes, expected);
    const auto offset = state_.append(std::as_bytes(std::span(log)));
    if (!offset) return offset.failed();
    watched_ = *offset;
    applied_ = false;
    auto replayed = replay();
    if (replayed && replayed_ <= *offset) replayed = pull();  // this host had not followed
    if (!replayed) return replayed;
    return applied_ ? Status() : Failed{EAGAIN};
  }

  // Applies what is in the local replica and not yet here.
  Status replay() {
    const auto version = state_.version();
    if (!version) return Failed{version.error()};
    const auto size = state_.size();
    if (!size) return Failed{size.error()};
    if (version->epoch != epoch_ || *size < replayed_) forget();  // it was removed, and made again
    epoch_ = version->epoch;
    std::string log;
    uint64_t at = replayed_;
    while (at < *size) {
      const size_t had = log.size();
      log.resize(had + static_cast<size_t>(std::min<uint64_t>(std::max(kReadBytes, had), *size - at)));
      const auto got = state_.read(at, std::as_writable_bytes(std::span(log).subspan(had)));
      if (!got) return Failed{got.error()};
      if (*got == 0) return Failed{EBADMSG};
      at += *got;
      log.resize(had + *got);
      size_t used = 0;
      while (const size_t record_bytes = apply(std::string_view(log).substr(used), replayed_)) {
        if (record_bytes == SIZE_MAX) return Failed{EBADMSG};
        used += record_bytes;
        replayed_ += record_bytes;
      }
      log.erase(0, used);
    }
    return log.empty() ? Status() : Status(Failed{EBADMSG});
  }
  // Applies the record at the beginning of `log`; its bytes, 0 where it is not whole, SIZE_MAX where it is none.
  size_t apply(std::string_view log, uint64_t offset) {
    Record record;
    if (log.size() < sizeof(record)) return 0;
    std::memcpy(&record, log.data(), sizeof(record));
    if (record.kind < kSet || record.kind > kSetIf || record.name_bytes > kNameBytesMax ||
        record.value_bytes > kValueBytesMax)
      return SIZE_MAX;
    const size_t bytes = padded(sizeof(record) + record.name_bytes + static_cast<size_t>(record.value_bytes));
    if (log.size() < bytes) return 0;
    std::string name(log.substr(sizeof(record), record.name_bytes));
    const auto found = entries_.find(name);
    const bool applies =
        record.kind != kSetIf || record.expected == (found == entries_.end() ? 0 : found->second.stamp);
    if (applies && record.kind == kErase) {
      entries_.erase(name);
    } else if (applies) {
      Entry& entry = entries_[std::move(name)];
      entry.bytes = log.substr(sizeof(record) + record.name_bytes, static_cast<size_t>(record.value_bytes));
      entry.stamp = offset + 1;
    }
    if (offset == watched_) applied_ = applies;
    return bytes;
  }

  State state_;
  std::unordered_map<std::string, Entry> entries_;
  uint64_t epoch_ = 0;
  uint64_t replayed_ = 0;  // bytes of the log
  uint64_t watched_ = UINT64_MAX;
  bool applied_ = false;
};

}  // namespace spore
