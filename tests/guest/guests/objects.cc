// The distributed data objects of sdk/cpp/spore_state.hpp: opens one, and takes the steps that follow. What it says is
// on standard output, one line a step; the exit code is an error number.
#include <stdio.h>
#include <stdlib.h>

#include <spore_state.hpp>

namespace {

using spore::Status;

int failed(const char* what, int error) {
  fprintf(stderr, "%s: %s\n", what, strerror(error));
  return error;
}

// "verb=first,second"
struct Step {
  std::string verb, first, second;
  explicit Step(std::string_view text) {
    const size_t equals = text.find('='), comma = text.find(',', equals == text.npos ? text.size() : equals);
    verb = text.substr(0, equals);
    if (equals != text.npos) first = text.substr(equals + 1, comma == text.npos ? comma : comma - equals - 1);
    if (comma != text.npos) second = text.substr(comma + 1);
  }
  long long number() const { return atoll(first.c_str()); }
  long long second_number() const { return atoll(second.c_str()); }
};

template <class Take>
int steps(std::span<char*> texts, Take take) {
  for (const char* text : texts) {
    const Status status = take(Step(text));
    if (!status) return failed(text, status.error());
  }
  return 0;
}

int value(const std::string& key, std::span<char*> texts) {
  const spore::State state(key);
  return steps(texts, [&](const Step& step) -> Status {
    if (step.verb == "map") {
      const auto bytes = state.map(static_cast<uint64_t>(step.number()));
      if (!bytes) return bytes.failed();
      printf("%zu\n", bytes->size());
      return {};
    }
    if (step.verb == "write")
      return state.write(static_cast<uint64_t>(step.number()), std::as_bytes(std::span(step.second)));
    if (step.verb == "print") {
      const auto bytes = state.map_read_only();
      if (!bytes) return bytes.failed();
      printf("%.*s\n", static_cast<int>(bytes->size()), reinterpret_cast<const char*>(bytes->data()));
      return {};
    }
    if (step.verb == "resize") return state.resize(static_cast<uint64_t>(step.number()));
    if (step.verb == "unmap") return state.unmap();
    if (step.verb == "push") return state.push();
    if (step.verb == "pull") return state.pull();
    if (step.verb == "remove") return state.remove();
    if (step.verb == "push-if") {  // of the version that is so much older
      auto version = state.version();
      if (!version) return version.failed();
      version->number -= static_cast<uint64_t>(step.number());
      return state.push_if(*version);
    }
    if (step.verb == "lock" || step.verb == "die") {  // read|write,host|global
      auto lock = state.lock({.write = step.first == "write", .global = step.second == "global", .timeout_ms = 1000});
      if (!lock) return lock.failed();
      printf("%s\n", lock->poisoned() ? "poisoned" : "locked");
      if (step.verb == "die") __builtin_trap();
      // Only one, and only until it goes.
      auto moved = std::move(*lock);
      if (const auto again = state.lock({.write = true, .global = step.second == "global"}); again.error() != EDEADLK)
        return spore::Failed{EDOM};
      return moved.unlock();
    }
    if (step.verb == "keys") {
      const auto keys = spore::state_keys(step.first);
      if (!keys) return keys.failed();
      for (const auto& name : *keys) printf("%s ", name.c_str());
      printf("\n");
      return {};
    }
    return spore::Failed{ENOSYS};
  });
}

int counter(const std::string& key, std::span<char*> texts) {
  auto counter = spore::Counter::open(key);
  if (!counter) return failed("open", counter.error());
  return steps(texts, [&](const Step& step) -> Status {
    if (step.verb == "add") counter->add(step.number());
    if (step.verb == "push") return counter->push();
    if (step.verb == "pull") return counter->pull();
    if (step.verb == "print") printf("%lld\n", static_cast<long long>(counter->value()));
    if (step.verb == "loop") {  // COUNT, pushed every so many
      for (long long i = 1; i <= step.number(); ++i) {
        counter->add(1);
        if (i % step.second_number() != 0) continue;
        if (const auto pushed = counter->push(); !pushed) return pushed;
      }
    }
    return {};
  });
}

// COUNT doubles
int array(const std::string& key, std::span<char*> texts) {
  const size_t count = static_cast<size_t>(atoll(texts[0]));
  auto array = count ? spore::Array<double>::create(key, count) : spore::Array<double>::open(key);
  if (!array) return failed("open", array.error());
  return steps(texts.subspan(1), [&](const Step& step) -> Status {
    const size_t index = static_cast<size_t>(step.number());
    if (step.verb == "set") (*array)[index] = atof(step.second.c_str());
    if (step.verb == "print") printf("%g of %zu\n", (*array)[index], array->size());
    if (step.verb == "push")
      return step.first.empty() ? array->push() : array->push(index, static_cast<size_t>(step.second_number()));
    if (step.verb == "pull")
      return step.first.empty() ? array->pull() : array->pull(index, static_cast<size_t>(step.second_number()));
    return {};
  });
}

// COUNT EVERY [pull-too]
template <class T>
int async(const std::string& key, std::span<char*> texts) {
  auto array = spore::AsyncArray<T>::create(
      key, static_cast<size_t>(atoll(texts[0])),
      {.push_every = static_cast<uint32_t>(atoll(texts[1])), .pull_too = !strcmp(texts[2], "pull-too")});
  if (!array) return failed("open", array.error());
  return steps(texts.subspan(3), [&](const Step& step) -> Status {
    const size_t index = static_cast<size_t>(step.number());
    if (step.verb == "add") array->add(index, static_cast<T>(step.second_number()));
    if (step.verb == "flush") return array->flush();
    if (step.verb == "pull") return array->pull();
    if (step.verb == "print") printf("%g\n", static_cast<double>((*array)[index]));
    if (step.verb == "loop")
      for (size_t i = 0; i < index; ++i) array->add(i % array->size(), 1);
    return {};
  });
}

double dense(size_t row, size_t column) { return static_cast<double>(row * 10007 + column * 31); }

// 512 rows, 1024 columns: 4 MiB
int matrix(const std::string& key, std::span<char*> texts) {
  if (!strcmp(texts[0], "make")) {
    auto matrix = spore::Matrix<double>::create(key, 512, 1024);
    if (!matrix) return failed("create", matrix.error());
    for (size_t column = 0; column < matrix->columns(); ++column)
      for (size_t row = 0; row < matrix->rows(); ++row) (*matrix)(row, column) = dense(row, column);
    return matrix->push().error();
  }
  if (!strcmp(texts[0], "other-shape")) return spore::Matrix<double>::create(key, 1024, 512).error();
  if (!strcmp(texts[0], "other-type")) return spore::Matrix<const float>::open(key).error();
  if (!strcmp(texts[0], "write")) {  // one column, pushed alone
    auto matrix = spore::Matrix<double>::open(key);
    if (!matrix) return failed("open", matrix.error());
    for (double& element : matrix->column(7)) element = -1;
    for (double& element : matrix->column(900)) element = -1;
    return matrix->push(7, 1).error();
  }
  const auto matrix = spore::Matrix<const double>::open(key);
  if (!matrix) return failed("open", matrix.error());
  return steps(texts, [&](const Step& step) -> Status {
    const auto column = static_cast<size_t>(step.number());
    if (step.verb == "shape") printf("%zu x %zu\n", matrix->rows(), matrix->columns());
    if (step.verb == "pull") return matrix->pull(column, static_cast<size_t>(step.second_number()));
    if (step.verb == "check") {
      const auto elements = matrix->column(column);
      for (size_t row = 0; row < elements.size(); ++row)
        if (elements[row] != dense(row, column)) return spore::Failed{EDOM};
    }
    if (step.verb == "trap") const_cast<double&>((*matrix)(0, column)) = 1;
    return {};
  });
}

// Column i has i % 7 elements, at rows (i + 13 j) % 5000, of i + j / 8.
int sparse(const std::string& key, std::span<char*> texts) {
  constexpr size_t kRows = 5000, kColumns = 200'000;
  using Sparse = spore::SparseMatrix<double>;
  if (!strcmp(texts[0], "make") || !strcmp(texts[0], "bad")) {
    std::vector<uint32_t> begins = {0}, rows;
    std::vector<double> values;
    for (size_t i = 0; i < kColumns; ++i) {
      for (size_t j = 0; j < i % 7; ++j) {
        rows.push_back(static_cast<uint32_t>((i + 13 * j) % kRows));
        values.push_back(static_cast<double>(i) + static_cast<double>(j) / 8);
      }
      begins.push_back(static_cast<uint32_t>(rows.size()));
    }
    if (!strcmp(texts[0], "bad")) {
      const Sparse::Parts good{.rows = kRows, .begins = begins, .row_of = rows, .values = values};
      auto parts = good;
      parts.rows = kRows - 1;
      if (Sparse::create(key, parts).error() != EINVAL) return 100;
      parts = good;
      parts.values = parts.values.first(5);
      if (Sparse::create(key, parts).error() != EINVAL) return 101;
      auto falling = begins;
      falling[5] = falling[6] + 1;
      parts = good;
      parts.begins = falling;
      if (Sparse::create(key, parts).error() != EINVAL) return 102;
      return spore::State(key).size().error();
    }
    const auto matrix = Sparse::create(key, {.rows = kRows, .begins = begins, .row_of = rows, .values = values});
    if (!matrix) return failed("create", matrix.error());
    return matrix->push().error();
  }
  const auto matrix = Sparse::open(key);
  if (!matrix) return failed("open", matrix.error());
  return steps(texts, [&](const Step& step) -> Status {
    if (step.verb == "shape") printf("%zu x %zu, %zu\n", matrix->rows(), matrix->columns(), matrix->nonzeros());
    if (step.verb == "check") {  // FIRST,COUNT
      for (size_t i = static_cast<size_t>(step.number()), end = i + static_cast<size_t>(step.second_number()); i < end;
           ++i) {
        const auto column = matrix->column(i);
        if (column.size() != i % 7) return spore::Failed{EDOM};
        for (size_t j = 0; j < column.size(); ++j)
          if (column.rows[j] != (i + 13 * j) % kRows ||
              column.values[j] != static_cast<double>(i) + static_cast<double>(j) / 8)
            return spore::Failed{EDOM};
      }
    }
    return {};
  });
}

int dict(const std::string& key, std::span<char*> texts) {
  auto dict = spore::Dict::open(key);
  if (!dict) return failed("open", dict.error());
  spore::Dict::Stamp seen = 0;
  return steps(texts, [&](const Step& step) -> Status {
    const auto* entry = dict->get(step.first);
    if (step.verb == "set") return dict->set(step.first, step.second);
    if (step.verb == "erase") return dict->erase(step.first);
    if (step.verb == "pull") return dict->pull();
    if (step.verb == "compact") return dict->compact();
    if (step.verb == "see") seen = entry ? entry->stamp : 0;
    if (step.verb == "set-if") return dict->set_if(step.first, step.second, seen);
    if (step.verb == "print") printf("%s of %zu\n", entry ? entry->bytes.c_str() : "none", dict->size());
    if (step.verb == "large") return dict->set(step.first, std::string(static_cast<size_t>(step.second_number()), 'x'));
    if (step.verb == "length") printf("%zu\n", entry ? entry->bytes.size() : 0);
    if (step.verb == "log") printf("%lld\n", static_cast<long long>(*dict->state().size()));
    if (step.verb == "increase") {  // NAME,TIMES: by compare and set
      for (long long i = 0; i < step.second_number();) {
        entry = dict->get(step.first);
        const auto changed = dict->set_if(step.first, std::to_string(entry ? atoll(entry->bytes.c_str()) + 1 : 1),
                                          entry ? entry->stamp : 0);
        if (changed)
          ++i;
        else if (changed.error() != EAGAIN)
          return changed;
      }
    }
    return {};
  });
}

struct Point {
  int32_t x, y, z;
};

int list(const std::string& key, std::span<char*> texts) {
  spore::List<Point> list(key);
  return steps(texts, [&](const Step& step) -> Status {
    const auto n = static_cast<int32_t>(step.number());
    if (step.verb == "append") {
      const auto index = list.append(Point{n, n + 1, n + 2});
      if (!index) return index.failed();
      printf("at %llu\n", static_cast<unsigned long long>(*index));
    }
    if (step.verb == "append-two") {
      const Point both[] = {{n, 0, 0}, {n + 1, 0, 0}};
      const auto index = list.append(both);
      if (!index) return index.failed();
      printf("at %llu\n", static_cast<unsigned long long>(*index));
    }
    if (step.verb == "get") {
      const auto point = list.get(static_cast<uint64_t>(step.number()));
      if (!point) return point.failed();
      printf("%d %d %d\n", point->x, point->y, point->z);
    }
    if (step.verb == "sum") {
      long long sum = 0, count = 0;
      Point points[100];
      for (;;) {
        const auto got = list.read(static_cast<uint64_t>(count), points);
        if (!got) return got.failed();
        if (*got == 0) break;
        for (size_t i = 0; i < *got; ++i) sum += points[i].x;
        count += static_cast<long long>(*got);
      }
      printf("%lld in %lld\n", sum, count);
    }
    if (step.verb == "pull") return list.pull();
    if (step.verb == "clear") return list.clear();
    if (step.verb == "size") {
      const auto size = list.size();
      if (!size) return size.failed();
      printf("%llu\n", static_cast<unsigned long long>(*size));
    }
    if (step.verb == "loop")
      for (int32_t i = 1; i <= n; ++i)
        if (const auto index = list.append(Point{i, 0, 0}); !index) return index.failed();
    return {};
  });
}

// spore::Call, with the functions of chain_test.cc; 0, or the line that does not hold.
#define CHECK(condition) \
  if (!(condition)) return __LINE__ & 127

int own_entry() { return 0; }

int calls() {
  spore::Call echo("echo", "hello"), fails("fail", ""), traps("trap", ""), never("never", "");
  CHECK(echo && echo.error() == 0 && echo.await() == 0 && echo.output() == "hello" && echo.message().empty());
  CHECK(fails.await() == 3 && fails.output() == "xxxxxxx" && fails.message() == "it exited with code 3");
  CHECK(traps.await() == -ECHILD && traps.output().empty() && traps.message() == "it trapped: unreachable");
  CHECK(never.await(5) == -EAGAIN && never.output().empty());
  spore::Call pair[] = {std::move(never), std::move(echo)};
  CHECK(!echo && echo.error() == EBADF && echo.await() == -EBADF && echo.output().empty());
  CHECK(spore::await_any(pair) == 1 && spore::await_any(std::span(pair, 1), 5) == -EAGAIN);
  pair[0].cancel();
  CHECK(pair[0].await() == -ECANCELED);
  pair[1] = spore::Call("later", "x");
  CHECK(pair[1].await() == 0 && pair[1].output() == "x");
  const spore::Call nobody("nobody", ""), own(own_entry, "");
  CHECK(!nobody && nobody.error() == ENOENT && nobody.await() == -ENOENT && own.await() == 0 &&
        own.output().size() == 4);
  const std::string inputs[] = {"a", "", "c"};
  const std::vector<spore::Call> all = spore::map("echo", inputs);
  CHECK(all.size() == 3 && all[0].output() == "a" && all[1].output().empty() && all[2].output() == "c");
  CHECK(spore::map("full", inputs)[2].error() == EAGAIN);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "calls") return calls();
  if (argc < 3) return 98;
  const std::string_view object = argv[1];
  const std::string key = argv[2];
  const std::span texts(argv + 3, static_cast<size_t>(argc - 3));
  if (object == "value") return value(key, texts);
  if (object == "counter") return counter(key, texts);
  if (object == "array") return array(key, texts);
  if (object == "async-double") return async<double>(key, texts);
  if (object == "async-int") return async<int32_t>(key, texts);
  if (object == "matrix") return matrix(key, texts);
  if (object == "sparse") return sparse(key, texts);
  if (object == "dict") return dict(key, texts);
  if (object == "list") return list(key, texts);
  return 98;
}
