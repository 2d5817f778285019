#include "compiler/linker.h"

#include <elf.h>
#include <fmt/format.h>
#include <llvm/DebugInfo/DWARF/DWARFDataExtractor.h>
#include <llvm/DebugInfo/DWARF/DWARFDebugFrame.h>
#include <llvm/Object/Error.h>

#include <map>

#include "base/check.h"
#include "compiler/generator.h"

namespace spore::compiler {

namespace {

constexpr uint64_t kPage = 4096;
uint64_t aligned(uint64_t value, uint64_t alignment) { return (value + alignment - 1) & ~(alignment - 1); }

enum class Kind { kDropped, kCode, kRodata, kFrames };

struct Section {
  const Elf64_Shdr* header = nullptr;
  Kind kind = Kind::kDropped;
  uint64_t address = 0;  // from the object base
};

// One ELF relocatable object, as LLVM writes it.
struct Relocatable {
  const char* data = nullptr;
  std::vector<Section> sections;
  const Elf64_Sym* symbols = nullptr;
  size_t symbol_count = 0;
  const char* strings = nullptr;

  const char* content(const Section& section) const { return data + section.header->sh_offset; }
};

Relocatable open_part(const llvm::SmallVector<char, 0>& bytes) {
  Relocatable part;
  part.data = bytes.data();
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(bytes.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(bytes.data() + header->e_shoff);
  const char* names = bytes.data() + sections[header->e_shstrndx].sh_offset;
  for (unsigned i = 0; i < header->e_shnum; ++i) {
    const Elf64_Shdr& entry = sections[i];
    const std::string_view name = names + entry.sh_name;
    Section section{&entry, Kind::kDropped, 0};
    if (entry.sh_flags & SHF_ALLOC) {
      section.kind = (entry.sh_flags & SHF_EXECINSTR) ? Kind::kCode
                     : name == ".eh_frame"            ? Kind::kFrames
                                                      : Kind::kRodata;
    }
    if (entry.sh_type == SHT_SYMTAB) {
      part.symbols = reinterpret_cast<const Elf64_Sym*>(bytes.data() + entry.sh_offset);
      part.symbol_count = entry.sh_size / sizeof(Elf64_Sym);
      part.strings = bytes.data() + sections[entry.sh_link].sh_offset;
    }
    part.sections.push_back(section);
  }
  return part;
}

Result<void> add_unwind_rows(ByteSpan frames, uint64_t address, std::vector<wasm::UnwindRow>& rows) {
  auto failed = [](llvm::Error error) {
    return fail(ErrorCode::kInternal, "linker: call frame information: " + llvm::toString(std::move(error)));
  };
  llvm::DWARFDebugFrame table(llvm::Triple::x86_64, /*IsEH=*/true, address);
  const llvm::DWARFDataExtractor extractor(llvm::StringRef(reinterpret_cast<const char*>(frames.data()), frames.size()),
                                           /*IsLittleEndian=*/true, 8);
  if (llvm::Error error = table.parse(extractor)) return failed(std::move(error));
  for (const llvm::dwarf::FrameEntry& entry : table.entries()) {
    const auto* fde = llvm::dyn_cast<llvm::dwarf::FDE>(&entry);
    if (!fde) continue;
    llvm::Expected<llvm::dwarf::UnwindTable> unwind = llvm::dwarf::UnwindTable::create(fde);
    if (!unwind) return failed(unwind.takeError());
    for (const llvm::dwarf::UnwindRow& row : *unwind) {
      const llvm::dwarf::UnwindLocation& cfa = row.getCFAValue();
      constexpr uint32_t kDwarfRsp = 7, kDwarfR11 = 11;
      const auto begin = static_cast<uint32_t>(row.hasAddress() ? row.getAddress() : fde->getInitialLocation());
      const bool relative = cfa.getLocation() == llvm::dwarf::UnwindLocation::RegPlusOffset;
      if (relative && cfa.getRegister() == kDwarfR11) {  // while a large frame's pages are probed: nobody calls there
        rows.push_back({begin, 0});
        continue;
      }
      if (!relative || cfa.getRegister() != kDwarfRsp)
        return fail(ErrorCode::kInternal,
                    fmt::format("linker: the frame at {:#x} is not addressed by the stack pointer", begin));
      rows.push_back({begin, static_cast<uint32_t>(cfa.getOffset())});
    }
    rows.push_back({static_cast<uint32_t>(fde->getInitialLocation() + fde->getAddressRange()), 0});
  }
  return {};
}

}  // namespace

Result<void> link(const std::vector<llvm::SmallVector<char, 0>>& inputs, wasm::Object& object) {
  std::vector<Relocatable> parts;
  for (const auto& input : inputs) parts.push_back(open_part(input));

  // Addresses: all code, then all read-only data, then (not stored) the frames.
  uint64_t at = wasm::kStubPageBytes;
  auto place = [&](Kind kind) {
    for (Relocatable& part : parts) {
      for (Section& section : part.sections) {
        if (section.kind != kind) continue;
        at = aligned(at, std::max<uint64_t>(section.header->sh_addralign, 1));
        section.address = at;
        at += section.header->sh_size;
      }
    }
    at = aligned(at, kPage);
  };
  place(Kind::kCode);
  const uint64_t rodata_begin = at;
  place(Kind::kRodata);
  const uint64_t rodata_end = at;
  place(Kind::kFrames);
  if (at > (1ull << 30)) return fail(ErrorCode::kResourceExhausted, "the module's code is larger than 1 GiB");

  std::vector<uint8_t> image(at - wasm::kStubPageBytes);
  std::fill(image.begin(), image.begin() + static_cast<ptrdiff_t>(rodata_begin - wasm::kStubPageBytes), 0xcc);
  std::map<std::string_view, uint64_t> globals;
  for (uint32_t i = 0; i < static_cast<uint32_t>(wasm::Stub::kCount); ++i)
    globals[kStubSymbols[i]] = i * wasm::kStubBytes;
  globals[kDescriptorsSymbol] = rodata_end;
  for (const Relocatable& part : parts) {
    for (const Section& section : part.sections) {
      if (section.kind == Kind::kDropped || section.header->sh_type == SHT_NOBITS || section.header->sh_size == 0)
        continue;
      std::memcpy(image.data() + (section.address - wasm::kStubPageBytes), part.content(section),
                  section.header->sh_size);
    }
    for (size_t i = 1; i < part.symbol_count; ++i) {
      const Elf64_Sym& symbol = part.symbols[i];
      if (ELF64_ST_BIND(symbol.st_info) != STB_GLOBAL || symbol.st_shndx == SHN_UNDEF) continue;
      globals[part.strings + symbol.st_name] = part.sections[symbol.st_shndx].address + symbol.st_value;
    }
  }

  for (const Relocatable& part : parts) {
    for (const Section& relocations : part.sections) {
      if (relocations.header->sh_type != SHT_RELA) continue;
      const Section& target = part.sections[relocations.header->sh_info];
      if (target.kind == Kind::kDropped) continue;
      const auto* entries = reinterpret_cast<const Elf64_Rela*>(part.content(relocations));
      for (size_t i = 0; i < relocations.header->sh_size / sizeof(Elf64_Rela); ++i) {
        const Elf64_Rela& entry = entries[i];
        const Elf64_Sym& symbol = part.symbols[ELF64_R_SYM(entry.r_info)];
        uint64_t value;
        if (symbol.st_shndx != SHN_UNDEF) {
          value = part.sections[symbol.st_shndx].address + symbol.st_value;
        } else {
          const std::string_view name = part.strings + symbol.st_name;
          auto found = globals.find(name);
          if (found == globals.end())
            return fail(ErrorCode::kInternal, fmt::format("linker: unresolved symbol {}", name));
          value = found->second;
        }
        const uint64_t place_address = target.address + entry.r_offset;
        const uint64_t result = value + static_cast<uint64_t>(entry.r_addend) - place_address;
        uint8_t* where = image.data() + (place_address - wasm::kStubPageBytes);
        switch (ELF64_R_TYPE(entry.r_info)) {
          case R_X86_64_PC32:
          case R_X86_64_PLT32: {
            const auto narrow = static_cast<int32_t>(result);
            CHECK(static_cast<int64_t>(result) == narrow);
            std::memcpy(where, &narrow, 4);
            break;
          }
          case R_X86_64_PC64: std::memcpy(where, &result, 8); break;
          default:
            return fail(ErrorCode::kInternal, fmt::format("linker: relocation type {} is not position independent",
                                                          ELF64_R_TYPE(entry.r_info)));
        }
      }
    }
  }

  for (const Relocatable& part : parts) {
    for (const Section& section : part.sections) {
      if (section.kind != Kind::kFrames) continue;
      const ByteSpan frames(image.data() + section.address - wasm::kStubPageBytes, section.header->sh_size);
      TRY(add_unwind_rows(frames, section.address, object.unwind));
    }
  }
  // A frame may begin where the one before ended: its first row wins over the end mark.
  std::stable_sort(object.unwind.begin(), object.unwind.end(), [](const wasm::UnwindRow& a, const wasm::UnwindRow& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.cfa_bytes < b.cfa_bytes;
  });

  auto address_of = [&](const std::string& name) -> Result<uint32_t> {
    auto found = globals.find(name);
    if (found == globals.end()) return fail(ErrorCode::kInternal, "linker: undefined symbol " + name);
    return static_cast<uint32_t>(found->second);
  };
  for (uint32_t i = 0; i < object.module.functions.size(); ++i) {
    ASSIGN_OR_RETURN(const uint32_t code, address_of(function_symbol(i)));
    object.functions.push_back(code);
    if (object.cross_instance) {
      ASSIGN_OR_RETURN(const uint32_t thunk, address_of(thunk_symbol(i)));
      object.references.push_back(thunk);
    } else {
      object.references.push_back(code);
    }
  }
  for (uint32_t i = 0; i < object.module.types.size(); ++i) {
    ASSIGN_OR_RETURN(const uint32_t trampoline, address_of(trampoline_symbol(i)));
    object.trampolines.push_back(trampoline);
  }
  const auto begin = image.begin();
  const auto middle = begin + static_cast<ptrdiff_t>(rodata_begin - wasm::kStubPageBytes);
  object.code.assign(begin, middle);
  object.rodata.assign(middle, begin + static_cast<ptrdiff_t>(rodata_end - wasm::kStubPageBytes));
  return {};
}

}  // namespace spore::compiler
