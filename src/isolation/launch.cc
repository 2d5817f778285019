#include "isolation/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <memory>

#include "isolation/lockdown.h"
#include "isolation/started.h"

extern char** environ;

namespace spore::isolation {

namespace {

constexpr size_t kArgumentsMax = 64;

Result<BrokerReply> start_one(const LaunchProgram& program, ByteSpan request, std::span<const UniqueFd> given,
                              Started& started) {
  if (started.count() >= program.running_max)
    return fail(ErrorCode::kResourceExhausted,
                "there are " + std::to_string(started.count()) + " processes of " + program.path + " already");
  ByteReader in(request);
  std::vector<std::string> arguments;
  const auto count = in.read<uint32_t>();
  if (count > kArgumentsMax) return fail(ErrorCode::kInvalidArgument, "too many arguments");
  for (uint32_t i = 0; i < count && in.ok(); ++i) arguments.push_back(in.read_text());
  if (!in.ok() || !in.at_end()) return fail(ErrorCode::kInvalidArgument, "a request that cannot be read");
  TRY(program.check(arguments));
  arguments.insert(arguments.begin(), program.path);

  const UniqueFd file(::open(program.path.c_str(), O_PATH | O_CLOEXEC));
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!file.valid() || !nothing.valid())
    return fail(ErrorCode::kFailedPrecondition, fail_errno("start " + program.path).error().message);
  std::vector<int> descriptors{nothing.get(), given[0].get(), given[0].get()}, numbers{0, 1, 2};
  for (size_t i = 1; i < given.size(); ++i) {
    descriptors.push_back(given[i].get());
    numbers.push_back(static_cast<int>(numbers.size()));
  }
  const pid_t broker = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != broker || !drop_privileges()) ::_exit(127);
    char* no_environment[] = {nullptr};
    char** environment = no_environment;
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    environment = environ;  // the sanitizers' options
#endif
    become(file.get(), descriptors, numbers, arguments, environment);
  }
  if (pid < 0) return fail(ErrorCode::kUnavailable, fail_errno("start " + program.path).error().message);
  BrokerReply reply;
  ASSIGN_OR_RETURN(reply.descriptors.emplace_back(), started.add(pid));
  ByteWriter out;
  out.write(static_cast<int32_t>(pid));
  reply.bytes = out.take();
  return reply;
}

}  // namespace

std::vector<BrokerOperation> launch_operations(LaunchProgram program) {
  const auto started = std::make_shared<Started>();
  const size_t descriptors = program.descriptors;
  std::vector<BrokerOperation> out;
  out.push_back(
      {.name = "launch",
       .descriptors = descriptors,
       .run_with = [program = std::move(program), started](ByteSpan request, std::span<const UniqueFd> given) {
         return start_one(program, request, given, *started);
       }});
  out.push_back({.name = "launch_ended", .run = [started](ByteSpan request) { return started->end(request); }});
  return out;
}

Result<Launched> launch(Broker& broker, const std::vector<std::string>& arguments, std::span<const int> descriptors,
                        Broker::Clock::time_point deadline) {
  ByteWriter request;
  request.write(static_cast<uint32_t>(arguments.size()));
  for (const std::string& argument : arguments) request.write_text(argument);
  ASSIGN_OR_RETURN(auto reply, broker.call("launch", request.bytes(), deadline, descriptors));
  ByteReader in(reply.bytes);
  Launched out{.pid = in.read<int32_t>()};
  if (!in.ok() || reply.descriptors.size() != 1) return fail(ErrorCode::kInternal, "the broker gave no process");
  out.pid_descriptor = std::move(reply.descriptors[0]);
  return out;
}

Result<int> end_of_launched(Broker& broker, pid_t pid, Broker::Clock::time_point deadline) {
  ByteWriter request;
  request.write(static_cast<int32_t>(pid));
  ASSIGN_OR_RETURN(auto reply, broker.call("launch_ended", request.bytes(), deadline));
  ByteReader in(reply.bytes);
  const int status = in.read<int32_t>();
  if (!in.ok()) return fail(ErrorCode::kInternal, "the broker said nothing of how a process ended");
  return status;
}

}  // namespace spore::isolation
