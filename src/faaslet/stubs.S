// The border between host and guest: entry, host call, trap, return, and the copies that may fault.
//
// A guest runs on the stack in its slot with GS.base = M; host functions run on the thread's own stack, whose pointer
// is in the thread's state (thread_state.h), never in the slot. Nothing of the host is left in a register or on the
// guest's stack when a guest gets control: integer, vector and mask registers are zeroed, MXCSR and DF reset.
//
// Labels that end in _armed begin a range in which an interrupt goes straight to spore_landing: the check for pending
// interrupts lies behind, guest code ahead. Everywhere else here an interrupt is only noted. interrupts.cc has the table.

#define STATE(field) %fs:spore_thread_state@tpoff+field
#define HOST_SP 0
#define PENDING 8
#define TRAP_KIND 12
#define TRAP_PC 16
#define TRAP_SP 24

// The instance header (wasm/abi.h), 256 bytes below M.
#define GUEST_SP %gs:-256+16
#define PENDING_CALL %gs:-256+24

#define EXIT_RETURNED 0
#define EXIT_TRAPPED 1
#define TRAP_KIND_INTERRUPTED 16

        .text

        .macro function name
        .globl \name
        .hidden \name
        .type \name, @function
        .p2align 4
\name:
        .endm
        .macro label name
        .globl \name
        .hidden \name
\name:
        .endm

        .macro zero_vectors
        testb $1, spore_cpu_features(%rip)
        jz 1f
        vzeroall
        testb $2, spore_cpu_features(%rip)
        jz 2f
        .irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vpxord %xmm\n, %xmm\n, %xmm\n
        .endr
        .irp n, 0,1,2,3,4,5,6,7
        kxorw %k\n, %k\n, %k\n
        .endr
        jmp 2f
1:
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        pxor %xmm\n, %xmm\n
        .endr
2:
        .endm

        // The host's side of an entry: what spore_landing takes back.
        .macro leave_host
        push %rbp
        push %rbx
        push %r12
        push %r13
        push %r14
        push %r15
        rdgsbase %rax
        push %rax
        pushq STATE(HOST_SP)
        sub $8, %rsp
        stmxcsr (%rsp)
        mov %rsp, STATE(HOST_SP)
        .endm

// uint32_t spore_enter(M, trampoline, function, sp, return_address): runs until the guest returns, traps, or a host call
// ends it. sp is an offset from M; return_address is the object's kEnterReturn stub.
        function spore_enter
        leave_host
        cmpl $0, STATE(PENDING)
        jne interrupted
        label spore_enter_armed
        wrgsbase %rdi
        lea (%rdi,%rcx), %rsp
        push %r8
        mov %rsi, %r11
        mov %rdx, %rdi
        zero_vectors
        ldmxcsr default_mxcsr(%rip)
        cld
        xor %eax, %eax
        xor %ecx, %ecx
        xor %edx, %edx
        xor %ebx, %ebx
        xor %esi, %esi
        xor %ebp, %ebp
        xor %r8d, %r8d
        xor %r9d, %r9d
        xor %r10d, %r10d
        xor %r12d, %r12d
        xor %r13d, %r13d
        xor %r14d, %r14d
        xor %r15d, %r15d
        jmp *%r11
        label spore_enter_armed_end

// uint32_t spore_resume(M): goes on behind the host call that a parked guest is in.
        function spore_resume
        leave_host
        wrgsbase %rdi
        jmp host_return

// uint32_t spore_resume_interrupted(M, frame): goes on where a guest was stopped between two instructions.
        function spore_resume_interrupted
        leave_host
        cmpl $0, STATE(PENDING)
        jne interrupted
        label spore_resume_armed
        wrgsbase %rdi
        mov %rsi, %rsp
        mov $15, %eax                   // rt_sigreturn
        syscall
        label spore_resume_armed_end

// Where the outermost guest frame returns to, by way of the stub page.
        function spore_enter_return
        mov $EXIT_RETURNED, %eax
// eax = why the guest stopped. From any stack: the host's is found in the thread's state.
        label spore_landing
        mov STATE(HOST_SP), %rsp
        ldmxcsr (%rsp)
        cld
        add $8, %rsp
        popq STATE(HOST_SP)
        pop %rdx
        wrgsbase %rdx
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbx
        pop %rbp
        ret

interrupted:
        movl $TRAP_KIND_INTERRUPTED, STATE(TRAP_KIND)
        mov $EXIT_TRAPPED, %eax
        jmp spore_landing

// The guest calls the host: edi = which, arguments in cells.
        function spore_host_call
        xor %edx, %edx
        jmp 1f
// The guest calls a function of another instance: edi = the function's index in the object that holds the caller.
        label spore_thunk_call
        mov (%rsp), %rdx
1:
        label spore_host_call_pushes
        push %rbp
        push %rbx
        push %r12
        push %r13
        push %r14
        push %r15
        rdgsbase %rsi
        mov %rsp, %rax
        sub %rsi, %rax
        mov %rax, GUEST_SP
        mov %edi, %eax
        mov %rax, PENDING_CALL
        label spore_host_call_switched
        mov STATE(HOST_SP), %rsp
        call spore_dispatch
        test %eax, %eax
        jne spore_landing
host_return:
        cmpl $0, STATE(PENDING)
        jne interrupted
        label spore_host_return_armed
        rdgsbase %rcx
        mov GUEST_SP, %rsp
        movq $0, GUEST_SP
        add %rcx, %rsp
        zero_vectors
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbx
        pop %rbp
        xor %eax, %eax
        xor %ecx, %ecx
        xor %edx, %edx
        xor %esi, %esi
        xor %edi, %edi
        xor %r8d, %r8d
        xor %r9d, %r9d
        xor %r10d, %r10d
        xor %r11d, %r11d
        ret
        label spore_host_return_armed_end

// The guest traps: edi = kind.
        function spore_trap
        mov %edi, STATE(TRAP_KIND)
        mov (%rsp), %rax
        dec %rax                        // into the call itself, which may be the last of its function
        mov %rax, STATE(TRAP_PC)
        lea 8(%rsp), %rax
        mov %rax, STATE(TRAP_SP)
        mov $EXIT_TRAPPED, %eax
        jmp spore_landing

// bool spore_guarded_copy(to, from, size), spore_guarded_fill(to, byte, size): false where a page is missing.
        function spore_guarded_copy
        mov %rdx, %rcx
        label spore_guarded_begin
        rep movsb
        mov $1, %eax
        ret
        function spore_guarded_fill
        mov %rdx, %rcx
        mov %esi, %eax
        rep stosb
        mov $1, %eax
        ret
        label spore_guarded_end
        label spore_guarded_failed
        xor %eax, %eax
        ret

// What rt_sigaction wants a handler to return to.
        function spore_sigreturn
        mov $15, %eax
        syscall

        .section .rodata
        .p2align 2
default_mxcsr:
        .long 0x1f80
        .section .note.GNU-stack, "", @progbits
