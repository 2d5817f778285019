#include "worker/children.h"

#include <sys/eventfd.h>

#include <algorithm>

#include "base/check.h"
#include "base/digest.h"
#include "worker/worker.h"

namespace spore::worker {

using functions::FunctionId;
using std::chrono::duration_cast;
using std::chrono::microseconds;

namespace {

struct FunctionName {
  FunctionId id;
  std::optional<uint64_t> version;
};

// "name" or "name@version", in a tenant.
Result<FunctionName> parse_name(const std::string& tenant, std::string_view text) {
  FunctionName out;
  const size_t at = text.find('@');
  if (at != std::string_view::npos) {
    const std::string_view digits = text.substr(at + 1);
    if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string_view::npos)
      return fail(ErrorCode::kInvalidArgument, std::string(text) + ": behind @ comes the number of a version");
    out.version = std::stoull(std::string(digits));
  }
  ASSIGN_OR_RETURN(out.id, FunctionId::make(tenant, text.substr(0, at)));
  return out;
}

// What a parent is told of a call that ended so. Takes the output.
host::ChildResult child_result(CallResult& result) {
  using host::wasi::Errno;
  host::ChildResult out;
  const auto failed = [&](Errno error, std::string message) {
    out.error = error;
    out.message = std::move(message);
  };
  switch (result.status) {
    case CallStatus::kOk: out.output = std::move(result.output); break;
    case CallStatus::kExited:
      out.exit_code = result.exit_code;
      out.message = "it exited with code " + std::to_string(result.exit_code);
      out.output = std::move(result.output);
      break;
    case CallStatus::kTrapped: {
      std::string message = "it trapped: " + result.trap.message;
      for (const auto& frame : result.trap.stack) message += "\n  at " + frame.function;
      failed(Errno::kChild, std::move(message));
      break;
    }
    case CallStatus::kTimedOut: failed(Errno::kTimedOut, "its time was up"); break;
    case CallStatus::kOutOfCpuTime: failed(Errno::kTimedOut, "it used up its CPU time"); break;
    case CallStatus::kOutputTooLarge: failed(Errno::kOverflow, "its output is larger than it may be"); break;
    case CallStatus::kCancelled: failed(Errno::kCanceled, "it was cancelled"); break;
    case CallStatus::kQueueFull:
    case CallStatus::kTenantQueueFull:
    case CallStatus::kTenantMemory:
    case CallStatus::kHostMemory:
    case CallStatus::kDraining: failed(Errno::kBusy, "there was no room for it on the host"); break;
    case CallStatus::kNotPushed:
    case CallStatus::kProcessEnded:
    case CallStatus::kFailed: failed(Errno::kIo, result.error.message); break;
  }
  return out;
}

std::unexpected<Error> no_room(std::string what) { return fail(ErrorCode::kResourceExhausted, std::move(what)); }

}  // namespace

Children::Children(Worker& worker, const Job& job)
    : worker_(worker),
      id_(job.request.id),
      function_(job.request.function),
      submitted_(job.submitted),
      deadline_(job.deadline),
      depth_(job.depth),
      priority_(job.request.priority),
      parent_(job.parent),
      tree_(job.tree),
      record_(job.record) {}

// ---- beginning ------------------------------------------------------------------------------------------------------

Result<host::Entry> Children::entry_of_self(uint32_t table_index) const {
  const wasm::ModuleInfo& module = function_->proto->module();
  const auto wrong = [&](std::string_view why) {
    return fail(ErrorCode::kInvalidArgument, "table entry " + std::to_string(table_index) + " " + std::string(why));
  };
  const auto function = function_->proto->function_in_table(table_index);
  if (!function) return wrong("holds no function");
  const wasm::Signature& signature = module.signature_of(*function);
  host::Entry entry;
  entry.has_exit_code = signature.results == std::vector{wasm::ValueType::kI32};
  if (!signature.params.empty() || !(signature.results.empty() || entry.has_exit_code))
    return wrong("is a function " + to_string(signature) + ", not () -> () or () -> (i32)");
  ASSIGN_OR_RETURN(const host::Entry of_module, host::find_entry(module));
  entry.call = *function;
  entry.from_image = of_module.from_image;
  entry.from_image.back() = *function;
  entry.from_start = of_module.from_start;
  entry.from_start.back() = *function;
  return entry;
}

// The same whenever the call that it is of is run again, so that what it does to state counts once.
CallId Children::id_of_child(uint32_t handle) const {
  std::array<uint8_t, 20> name;
  std::ranges::copy(id_.bytes, name.begin());
  std::memcpy(name.data() + id_.bytes.size(), &handle, sizeof(handle));
  const Digest digest = sha256(name);
  CallId id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

Result<uint32_t> Children::begin(host::ChildRequest request) {
  const ChainLimits& limits = worker_.options_.chain;
  FunctionSource* const source = worker_.functions_;
  auto job = std::make_unique<Job>();
  FunctionName name{function_->id, function_->version.number};
  if (request.table_index) {
    ASSIGN_OR_RETURN(job->self, entry_of_self(*request.table_index));
    job->request.function = function_;
  } else if (request.function.empty()) {
    job->request.function = function_;
  } else {
    if (!source) return fail(ErrorCode::kUnavailable, "this function cannot call others here");
    ASSIGN_OR_RETURN(name, parse_name(function_->id.tenant, request.function));
    job->request.function = source->find(name.id, name.version);
    if (!job->request.function && !source->exists(name.id, name.version))
      return fail(ErrorCode::kNotFound,
                  "there is no function " + name.id.name + (name.version ? "@" + std::to_string(*name.version) : ""));
  }
  const uint64_t input_bytes = request.input.size();
  if (input_bytes > limits.input_bytes_max)
    return fail(ErrorCode::kInvalidArgument,
                "an input has at most " + std::to_string(limits.input_bytes_max) + " bytes");

  const uint32_t handle = last_handle_ + 1;  // only this thread changes it
  const auto now = Clock::now();
  job->request.id = id_of_child(handle);
  job->request.input = std::move(request.input);
  job->request.priority = priority_;
  job->parent = shared_from_this();
  job->handle = handle;
  job->depth = depth_ + 1;
  job->submitted = now;
  job->deadline = deadline_;
  const bool loaded = job->request.function != nullptr;
  if (worker_.charge_input(*job, function_->id.tenant) != MemoryAccount::Refusal::kNone)
    return no_room("there is no memory for its input in what the tenant may have");
  if (loaded) job->limit_time();

  bool wake = false;
  std::optional<Worker::Leaving> leaving;
  {
    auto state = worker_.state_.lock();
    if (depth_ >= limits.depth_max)
      return no_room("a chain has at most " + std::to_string(limits.depth_max) + " calls");
    if (children_.size() >= limits.children_max)
      return no_room("a call holds at most " + std::to_string(limits.children_max) + " calls that it has not closed");
    if (!tree_) {
      tree_ = std::make_shared<CallTree>();
      tree_->root = id_;
      tree_->began = submitted_;
      tree_->graph.tenant = function_->id.tenant;
      tree_->graph.calls.push_back({.id = id_, .function = function_->id.name, .version = function_->version.number});
      state->trees.emplace(id_, tree_);
    }
    if (tree_->graph.calls.size() > limits.tree_calls_max)
      return no_room("one call leads to at most " + std::to_string(limits.tree_calls_max) + " others");
    if (input_bytes > limits.tree_bytes_max - std::min(tree_->bytes, limits.tree_bytes_max))
      return no_room("the inputs and outputs of a tree of calls have at most " + std::to_string(limits.tree_bytes_max) +
                     " bytes at once");
    if (worker_.refusal_of(*state, function_->id.tenant, input_bytes)) return no_room("the host's queue is full");

    job->tree = tree_;
    job->record = tree_->graph.calls.size();
    tree_->graph.calls.push_back({.id = job->request.id,
                                  .parent = record_,
                                  .function = name.id.name,
                                  .version = loaded ? job->request.function->version.number : name.version.value_or(0),
                                  .depth = job->depth,
                                  .submitted = duration_cast<microseconds>(now - tree_->began),
                                  .input_bytes = input_bytes});
    auto child = std::make_unique<Child>();
    child->job = job.get();
    child->bytes = input_bytes;
    tree_->bytes += input_bytes;
    children_.emplace(handle, std::move(child));
    last_handle_ = handle;
    if (loaded && job->runs_elsewhere()) {
      leaving = worker_.leave_here(*state, std::move(job));
    } else if (loaded) {
      worker_.enqueue(*state, std::move(job), now);
      wake = state->running < worker_.options_.seats && state->queue.has_ready();
    } else {
      worker_.watch_deadline(*state, job->deadline);
      Job& waits = *job;
      waits.place = Job::Place::kLoading;
      waits.at = state->loading.insert(state->loading.end(), std::move(job));
    }
  }
  if (wake) worker_.wake_();
  if (leaving) worker_.run_elsewhere(std::move(*leaving));
  if (!loaded) {
    worker_.functions_->load(name.id, name.version, [self = shared_from_this(), handle](auto function) {
      self->worker_.loaded(self, handle, std::move(function));
    });
  }
  return handle;
}

void Worker::loaded(const std::shared_ptr<Children>& parent, uint32_t handle,
                    Result<FunctionSource::Function> function) {
  Endings failed;
  bool wake = false;
  std::optional<Leaving> leaving;
  {
    auto state = state_.lock();
    const auto found = parent->children_.find(handle);
    if (found == parent->children_.end() || !found->second->job) return;  // cancelled meanwhile
    Job& job = *found->second->job;
    if (job.place != Job::Place::kLoading) return;
    JobPtr owned = std::move(*job.at);
    state->loading.erase(job.at);
    job.place = Job::Place::kNowhere;
    if (function) {
      job.request.function = std::move(*function);
      job.request.loading = std::max(microseconds(1), duration_cast<microseconds>(Clock::now() - job.submitted));
      job.tree->graph.calls[job.record].version = job.request.function->version.number;
      job.limit_time();
      if (job.runs_elsewhere())
        leaving = leave_here(*state, std::move(owned));
      else
        enqueue(*state, std::move(owned), Clock::now());
      wake = state->queue.has_ready() && state->running < options_.seats;
    } else {
      failed.push_back({.job = std::move(owned), .status = CallStatus::kFailed, .error = std::move(function).error()});
    }
  }
  if (wake) wake_();
  if (leaving) run_elsewhere(std::move(*leaving));
  end(std::move(failed));
}

Result<std::string> Children::begin_detached(const host::ChildRequest& request, const std::string& once) {
  if (!worker_.hooks_.begin_detached) return fail(ErrorCode::kUnavailable, "this host keeps no durable calls");
  ASSIGN_OR_RETURN(const FunctionName name, parse_name(function_->id.tenant, request.function));
  if (!worker_.functions_->exists(name.id, name.version))
    return fail(ErrorCode::kNotFound, "there is no function " + request.function);
  ASSIGN_OR_RETURN(const CallId id, worker_.hooks_.begin_detached(name.id, name.version, request.input, once));
  return id.text();
}

// ---- awaiting -------------------------------------------------------------------------------------------------------

host::ChildCalls::Status Children::status(uint32_t handle) {
  auto state = worker_.state_.lock();
  const auto found = children_.find(handle);
  if (found == children_.end()) return Status::kUnknown;
  return found->second->job ? Status::kRunning : Status::kEnded;
}

// Nobody changes it once it has ended.
const host::ChildResult& Children::result(uint32_t handle) {
  auto state = worker_.state_.lock();
  const auto found = children_.find(handle);
  CHECK(found != children_.end() && !found->second->job, handle);
  return found->second->result;
}

bool Children::await(std::span<const uint32_t> handles) {
  auto state = worker_.state_.lock();
  for (const uint32_t handle : awaited_)
    if (const auto found = children_.find(handle); found != children_.end()) found->second->awaited = false;
  awaited_.assign(handles.begin(), handles.end());
  woken_ = false;
  for (const uint32_t handle : handles) {
    const auto found = children_.find(handle);
    if (found == children_.end() || !found->second->job) return false;
    found->second->awaited = true;
  }
  return true;
}

Job* Children::first_that_waits() const {
  for (const uint32_t handle : awaited_) {
    const auto found = children_.find(handle);
    if (found == children_.end()) continue;
    Job* job = found->second->job;
    if (job && job->is_ready) return job;
  }
  return nullptr;
}

int Children::fd(uint32_t handle) {
  auto state = worker_.state_.lock();
  const auto found = children_.find(handle);
  if (found == children_.end()) return -1;
  Child& child = *found->second;
  if (!child.ended.valid()) child.ended = UniqueFd(::eventfd(child.job ? 0 : 1, EFD_CLOEXEC | EFD_NONBLOCK));
  return child.ended.get();
}

bool Children::cancel(uint32_t handle) {
  Worker::Endings stopped;
  {
    auto state = worker_.state_.lock();
    const auto found = children_.find(handle);
    if (found == children_.end()) return false;
    if (found->second->job) worker_.stop(*state, *found->second->job, stopped);
  }
  worker_.end(std::move(stopped));
  return true;
}

bool Children::close(uint32_t handle) {
  Worker::Endings stopped;
  std::unique_ptr<Child> closed;  // an output may be large
  {
    auto state = worker_.state_.lock();
    const auto found = children_.find(handle);
    if (found == children_.end()) return false;
    closed = std::move(found->second);
    children_.erase(found);
    tree_->bytes -= closed->bytes;
    if (closed->job) worker_.stop(*state, *closed->job, stopped);
  }
  worker_.end(std::move(stopped));
  return true;
}

std::vector<std::string> Children::ancestors() const {
  std::vector<std::string> keys;
  for (const Children* at = parent_.get(); at; at = at->parent_.get())
    keys.emplace_back(at->id_.bytes.begin(), at->id_.bytes.end());
  return keys;
}

// ---- ending ---------------------------------------------------------------------------------------------------------

JobPtr Worker::settle(State& state, Job& job, CallResult& result, Endings& stopped) {
  if (job.children) {
    Children& own = *job.children;
    own.ended_ = true;
    for (const auto& [handle, child] : own.children_) {
      own.tree_->bytes -= child->bytes;
      if (child->job) stop(state, *child->job, stopped);
    }
    own.children_.clear();
    if (!job.parent && own.tree_) job.tree = own.tree_;
  }
  if (job.tree) record_end(state, job, result);
  return job.parent ? tell_parent(state, job, result) : nullptr;
}

JobPtr Worker::tell_parent(State& state, Job& job, CallResult& result) {
  Children& parent = *job.parent;
  const auto found = parent.children_.find(job.handle);  // not there: closed, or the parent has ended
  const uint64_t output_bytes = result.output.size();
  if (found == parent.children_.end()) {
    result.output = {};
    result.output_streamed = output_bytes;
    return nullptr;
  }
  Children::Child& child = *found->second;
  child.result = child_result(result);
  result.output = {};
  result.output_streamed = output_bytes;
  child.job = nullptr;
  CallTree& tree = *parent.tree_;
  tree.bytes -= child.bytes;
  if (child.result.output.size() >
      options_.chain.tree_bytes_max - std::min(tree.bytes, options_.chain.tree_bytes_max)) {
    child.result = {};
    child.result.error = host::wasi::Errno::kOverflow;
    child.result.message = "there is no room for its output beside what this tree of calls holds already (" +
                           std::to_string(options_.chain.tree_bytes_max) + " bytes)";
  }
  if (options_.memory && child.result.output.size() > host::kBuffersFreeBytes) {
    child.charge = MemoryCharge(options_.memory->account_of(parent.function_->id.tenant), MemoryKind::kBuffers);
    if (child.charge.cover_at_once(child.result.output.size()) != MemoryAccount::Refusal::kNone) {
      child.result = {};
      child.result.error = host::wasi::Errno::kOverflow;
      child.result.message = "there is no memory for its output in what the tenant may have";
    }
  }
  child.bytes = child.result.output.size() + child.result.message.size();
  tree.bytes += child.bytes;
  if (child.ended.valid()) ::eventfd_write(child.ended.get(), 1);
  if (!child.awaited) return nullptr;
  child.awaited = false;
  parent.woken_ = true;
  return parent.awaits_ ? take_parked(state, *parent.awaits_) : nullptr;
}

void Worker::record_end(State& state, const Job& job, const CallResult& result) {
  CallTree& tree = *job.tree;
  CallRecord& record = tree.graph.calls[job.record];
  record.ended = duration_cast<microseconds>(Clock::now() - tree.began);
  if (job.started != Clock::time_point{}) record.started = duration_cast<microseconds>(job.started - tree.began);
  record.status = result.status;
  record.exit_code = result.exit_code;
  record.start = result.start;
  record.output_bytes = result.output.size() + result.output_streamed;
  if (job.parent) return;
  record.input_bytes = job.input_bytes;
  state.trees.erase(tree.root);
  state.ended_calls += tree.graph.calls.size();
  state.ended_trees.push_back(job.tree);
  while (state.ended_trees.size() > options_.chain.graphs_max || state.ended_calls > options_.chain.graph_calls_max) {
    state.ended_calls -= state.ended_trees.front()->graph.calls.size();
    state.ended_trees.pop_front();
  }
}

std::optional<CallGraph> Worker::graph(const CallId& root) const {
  auto state = state_.lock();
  if (const auto lives = state->trees.find(root); lives != state->trees.end()) return lives->second->graph;
  const auto ended = std::ranges::find(state->ended_trees, root, [](const auto& tree) { return tree->root; });
  return ended == state->ended_trees.end() ? std::nullopt : std::optional((*ended)->graph);
}

}  // namespace spore::worker
