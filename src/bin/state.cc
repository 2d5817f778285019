// The commands for state values: spore state ls, get, put, rm on a host, and spore state copy from store to store.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/fd.h"
#include "base/percent.h"
#include "bin/commands.h"
#include "bin/host_client.h"
#include "bin/progress.h"
#include "bin/state_copy.h"
#include "bin/state_store.h"

namespace spore::bin {
namespace {

using nlohmann::json;

// A value up to here is replaced at once; the rest of a larger one is appended piece by piece.
constexpr size_t kPieceBytes = 64 << 20;
constexpr size_t kFirstReadBytes = 64 << 10;

struct StateArguments {
  std::string tenant;
  std::string key;
  std::vector<std::string> keys;
  std::string prefix;
  std::string file;  // "", "-": standard input or output
  std::string range;
  std::string if_version;  // "none", "any", or as ls shows it
  std::optional<uint64_t> offset;
  bool append = false;
  bool raw = false;
};

struct CopyArguments {
  std::string from, to;
  std::vector<std::string> tenants;
  bool replace = false;
};

Result<std::string> target_of(const std::string& tenant, const std::string& key) {
  TRY(functions::check_name_part("the tenant's name", tenant));
  if (key.empty()) return fail(ErrorCode::kInvalidArgument, "the key is empty");
  return "/v1/state/" + tenant + "/" + percent_encode(key);
}

std::vector<std::pair<std::string, std::string>> condition_of(const std::string& version) {
  if (version.empty()) return {};
  if (version == "none") return {{"If-None-Match", "*"}};
  return {{"If-Match", version == "any" ? "*" : "\"" + version + "\""}};
}

std::string exact_size_text(uint64_t bytes) {
  return bytes < 10 << 10 ? std::to_string(bytes) + " B" : size_text(json(bytes));
}

// Control characters as \xNN, so that a key can do nothing to a terminal and stays on its line.
std::string printable(const std::string& key) {
  std::string out;
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    char text[8];
    std::snprintf(text, sizeof(text), "\\x%02x", byte);
    if (byte < 0x20 || byte == 0x7f)
      out += text;
    else
      out += c;
  }
  return out;
}

Result<void> list(const Client& client, const StateArguments& arguments) {
  TRY(functions::check_name_part("the tenant's name", arguments.tenant));
  std::string path = "/v1/state/" + arguments.tenant + "?limit=1000";
  if (!arguments.prefix.empty()) path += "&prefix=" + percent_encode(arguments.prefix);
  ASSIGN_OR_RETURN(const json all, client.send_for_list(path, "values"));
  if (arguments.raw) return write_out(all.dump(2) + "\n");
  std::vector<std::vector<std::string>> rows{{"KEY", "SIZE", "VERSION"}};
  for (const auto& value : all)
    rows.push_back({printable(text_of(value, "key")), exact_size_text(value.value("size_bytes", uint64_t{0})),
                    text_of(value, "version")});
  return write_out(table(rows));
}

// ---- get ------------------------------------------------------------------------------------------------------------

// Where the bytes of a value go: standard output, or a file that has its name once it is whole.
class Destination {
 public:
  static Result<Destination> open(const std::string& file) {
    if (file.empty() || file == "-") return Destination(UniqueFd(), "");
    const std::string part = file + ".part";
    UniqueFd fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!fd.valid()) return fail_errno("create " + part);
    return Destination(std::move(fd), file);
  }
  Destination(Destination&&) = default;
  Destination& operator=(Destination&&) = delete;
  ~Destination() {
    if (fd_.valid()) ::unlink((file_ + ".part").c_str());
  }

  Result<void> write(std::string_view bytes) const {
    return write_all(file_.empty() ? STDOUT_FILENO : fd_.get(), as_bytes(bytes));
  }
  Result<void> keep() {
    if (file_.empty()) return {};
    if (::rename((file_ + ".part").c_str(), file_.c_str()) != 0) return fail_errno("rename to " + file_);
    fd_.reset();
    return {};
  }

 private:
  Destination(UniqueFd fd, std::string file) : fd_(std::move(fd)), file_(std::move(file)) {}

  UniqueFd fd_;
  std::string file_;  // "": standard output
};

Result<void> get(const Client& client, const StateArguments& arguments) {
  ASSIGN_OR_RETURN(const std::string target, target_of(arguments.tenant, arguments.key));
  ASSIGN_OR_RETURN(Destination destination, Destination::open(arguments.file));
  ProgressLine line("getting " + printable(arguments.key));
  double all = 0, got = 0;
  HttpRequest request{.target = target, .fields = condition_of(arguments.if_version)};
  if (!arguments.range.empty()) request.fields.emplace_back("Range", "bytes=" + arguments.range);
  bool is_part = false;
  request.on_head = [&](const HttpResponse& response) {
    all = std::strtod(response.field("content-length").c_str(), nullptr);
    is_part = response.status == 206;
  };
  const auto on_body = [&](std::string_view bytes) -> Result<void> {
    if (!arguments.range.empty() && !is_part)
      return fail(ErrorCode::kInvalidArgument, "--range " + arguments.range + ": it is FIRST-LAST, FIRST- or -COUNT");
    TRY(destination.write(bytes));
    got += static_cast<double>(bytes.size());
    if (all > 0) line.show(got / all);
    return {};
  };
  TRY(client.send(std::move(request), on_body));
  return destination.keep();
}

// ---- put ------------------------------------------------------------------------------------------------------------

class Source {
 public:
  static Result<Source> open(const std::string& file) {
    Source out;
    if (file.empty() || file == "-") return out;
    out.fd_ = UniqueFd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status{};
    if (!out.fd_.valid() || ::fstat(out.fd_.get(), &status) != 0) return fail_errno("open " + file);
    if (S_ISDIR(status.st_mode)) return fail(ErrorCode::kInvalidArgument, file + " is a directory");
    if (S_ISREG(status.st_mode)) out.size_bytes_ = static_cast<uint64_t>(status.st_size);
    return out;
  }

  // Up to kPieceBytes; fewer only at the end.
  Result<void> read(Bytes& piece) const {
    size_t have = 0;
    while (have < kPieceBytes) {
      if (have == piece.size()) piece.resize(std::min(kPieceBytes, std::max(kFirstReadBytes, 2 * have)));
      const ssize_t count = ::read(fd_.valid() ? fd_.get() : STDIN_FILENO, piece.data() + have, piece.size() - have);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return fail_errno("read what to put");
      if (count == 0) break;
      have += static_cast<size_t>(count);
    }
    piece.resize(have);
    return {};
  }
  uint64_t size_bytes() const { return size_bytes_; }  // 0: not known

 private:
  UniqueFd fd_;  // not valid: standard input
  uint64_t size_bytes_ = 0;
};

Result<void> put(const Client& client, const StateArguments& arguments) {
  ASSIGN_OR_RETURN(const std::string target, target_of(arguments.tenant, arguments.key));
  ASSIGN_OR_RETURN(const Source source, Source::open(arguments.file));
  ProgressLine line("putting " + printable(arguments.key));
  uint64_t done = 0;
  auto condition = condition_of(arguments.if_version);
  Bytes piece;
  while (true) {
    TRY(source.read(piece));
    const bool is_last = piece.size() < kPieceBytes;
    if (is_last && piece.empty() && done > 0) break;
    HttpRequest request{.method = "PUT", .target = target, .fields = condition, .body = piece};
    if (arguments.offset) {
      request.target += "?offset=" + std::to_string(*arguments.offset + done);
    } else if (arguments.append || done > 0) {
      request.method = "POST";
      request.target += "?append";
    }
    auto answered = client.send(std::move(request));
    if (!answered) {
      if (done == 0) return std::unexpected(std::move(answered).error());
      return std::unexpected(std::move(answered).error().within("after the first " + std::to_string(done) + " bytes"));
    }
    // What comes next belongs behind this and nothing else.
    condition = {{"If-Match", answered->field("etag")}};
    done += piece.size();
    if (source.size_bytes()) line.show(static_cast<double>(done) / static_cast<double>(source.size_bytes()));
    const json value = json::parse(answered->body, nullptr, false);
    if (is_last && value.is_object()) {
      return write_out(printable(arguments.key) + "  " + exact_size_text(value.value("size_bytes", uint64_t{0})) +
                       "  " + text_of(value, "version") + "\n");
    }
    if (is_last) break;
  }
  return {};
}

Result<void> remove(const Client& client, const StateArguments& arguments) {
  for (const std::string& key : arguments.keys) {
    ASSIGN_OR_RETURN(const std::string target, target_of(arguments.tenant, key));
    const auto removed =
        client.send({.method = "DELETE", .target = target, .fields = condition_of(arguments.if_version)});
    if (!removed) return std::unexpected(Error(removed.error()).within(printable(key)));
  }
  return {};
}

// ---- copy -----------------------------------------------------------------------------------------------------------

Result<void> copy(const CopyArguments& arguments) {
  for (const auto& tenant : arguments.tenants) TRY(functions::check_name_part("the tenant's name", tenant));
  ASSIGN_OR_RETURN(const auto from, open_state_store(arguments.from, {}, IfMissing::kFail));
  ASSIGN_OR_RETURN(const auto to, open_state_store(arguments.to, {}, IfMissing::kMake));
  for (const std::string& tenant : arguments.tenants) {
    ProgressLine line("copying " + tenant);
    ASSIGN_OR_RETURN(const CopyTotals totals,
                     copy_state(*from, *to, tenant, arguments.replace ? IfThere::kReplace : IfThere::kFail,
                                [&](double share) { line.show(share); }));
    TRY(write_out(tenant + "  " + std::to_string(totals.values) + " values, " + exact_size_text(totals.bytes) + "\n"));
  }
  return {};
}

}  // namespace

void add_state(CLI::App& app, int& exit_code) {
  auto* const state = app.add_subcommand("state", "State values");
  state->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, auto action) {
    const auto arguments = std::make_shared<StateArguments>();
    auto* const added = add_command<StateArguments>(*state, exit_code, name, help, arguments, action);
    added->add_option("TENANT", arguments->tenant)->required();
    return std::pair{added, arguments};
  };
  const char* const kIfVersion =
      "Only at this version, as ls shows it; any: where there is one; none: where there is none";
  {
    auto [added, arguments] = add("ls", "List values: key, size, version", &list);
    added->add_option("PREFIX", arguments->prefix, "Of the keys");
    added->add_flag("--json", arguments->raw, "All fields, as JSON");
  }
  {
    auto [added, arguments] = add("get", "Write a value to standard output or a file", &get);
    added->add_option("KEY", arguments->key)->required();
    added->add_option("-o,--output", arguments->file, "The file; it has its name once it is whole")->type_name("FILE");
    added->add_option("--range", arguments->range, "Bytes FIRST-LAST, FIRST- or -COUNT")->type_name("RANGE");
    added->add_option("--if-version", arguments->if_version, kIfVersion)->type_name("VERSION");
  }
  {
    auto [added, arguments] = add("put", "Make or replace a value; above 64 MiB in pieces, one after the other", &put);
    added->add_option("KEY", arguments->key)->required();
    added->add_option("FILE", arguments->file, "Default: standard input");
    auto* const offset = added->add_option("--offset", arguments->offset, "Write a part of a value, from this byte on")
                             ->type_name("BYTES");
    added->add_flag("--append", arguments->append, "Put it behind the value's end")->excludes(offset);
    added->add_option("--if-version", arguments->if_version, kIfVersion)->type_name("VERSION");
  }
  {
    auto [added, arguments] = add("rm", "Remove values", &remove);
    added->add_option("KEY", arguments->keys)->required();
    added->add_option("--if-version", arguments->if_version, kIfVersion)->type_name("VERSION");
  }
  const auto arguments = std::make_shared<CopyArguments>();
  auto* const added = state->add_subcommand("copy", "Copy all values of tenants from one store to another");
  added->add_option("--from", arguments->from, kStateStoreHelp)->required()->type_name("STORE");
  added->add_option("--to", arguments->to, kStateStoreHelp)->required()->type_name("STORE");
  added->add_option("--tenant", arguments->tenants, "Whose values; may be given more than once")->required();
  added->add_flag("--replace", arguments->replace, "Replace values that are there; else they are an error");
  added->callback([arguments, &exit_code] {
    const auto done = copy(*arguments);
    if (done) return;
    std::fprintf(stderr, "spore state copy: %s\n", done.error().message.c_str());
    exit_code = 1;
  });
}

}  // namespace spore::bin
