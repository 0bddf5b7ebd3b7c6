/*
 * A kernel that is none: from its first instruction on it does to the devices what no driver does, for as long as it is let.
 *
 * Each turn draws a number and, by it, writes and reads registers of a device at any offset and width, brings a device up the way a
 * driver does and gives it rings full of garbage, writes to rings that the device is reading, rings queues, or reads and writes a port.
 * The seed is the time-stamp counter, so that no two machines do the same.
 *
 * Entered as Linux is in 64-bit mode, with the first GiB mapped to itself; three GiB and on are added here for the devices.
 *
 * r12 the generator's state; r13 registers of the device of this turn; rings are in 16 MiB from RINGS on.
 */
    .intel_syntax noprefix
    .set DEVICES,     0xd0000000   /* registers of the first device */
    .set DEVICE_COUNT_MASK, 7      /* eight are looked for; where there is none, the bus says so */
    .set PAGE_TABLE,  0x9000       /* the monitor's */
    .set DIRECTORY,   0x3000000    /* ours, for the fourth GiB */
    .set RINGS,       0x2000000
    .set RINGS_MASK,  0xfffff8
    .set STACK,       0x3100000

    .globl _start
_start:
    mov esp, offset STACK
    /* Sixteen pages of 2 MiB at the devices would do; a whole directory is simpler. */
    mov edi, offset DIRECTORY
    mov eax, 0xc0000083
    mov ecx, 512
1:  mov [rdi], rax
    add rdi, 8
    add rax, 0x200000
    loop 1b
    mov eax, dword ptr [PAGE_TABLE]
    and eax, 0xfffff000
    mov dword ptr [rax + 24], offset DIRECTORY + 3
    mov dword ptr [rax + 28], 0
    mov rax, cr3
    mov cr3, rax
    rdtsc
    shl rdx, 32
    or rax, rdx
    or rax, 1
    mov r12, rax

turn:
    call draw
    mov r13, rax
    and r13, DEVICE_COUNT_MASK
    shl r13, 12
    mov ecx, offset DEVICES
    add r13, rcx
    call draw
    mov ecx, eax
    shr eax, 8
    and ecx, 15
    cmp ecx, 4
    jb any_register
    cmp ecx, 6
    jb bring_up
    cmp ecx, 11
    jb malform
    cmp ecx, 14
    jb ring
    je port
    jmp odd_register

/* A register of 32 bits, read and written. */
any_register:
    call draw
    mov rbx, rax
    and ebx, 0xffc
    mov ecx, [r13 + rbx]
    shr rax, 32
    mov [r13 + rbx], eax
    jmp turn

/* Any width at any offset, across the ends of registers. */
odd_register:
    call draw
    mov rbx, rax
    and ebx, 0xfff
    shr rax, 17
    test eax, 0x100
    jz 1f
    mov [r13 + rbx], al
    mov cl, [r13 + rbx]
    jmp turn
1:  test eax, 0x200
    jz 1f
    mov [r13 + rbx], ax
    mov cx, [r13 + rbx]
    jmp turn
1:  mov [r13 + rbx], rax
    mov rcx, [r13 + rbx]
    jmp turn

/* Reset, acknowledged, features as offered or fewer, four queues somewhere in the rings, running. */
bring_up:
    mov dword ptr [r13 + 0x70], 0
    mov dword ptr [r13 + 0x70], 1
    mov dword ptr [r13 + 0x70], 3
    call draw
    mov rbx, rax
    or rbx, -2
    mov dword ptr [r13 + 0x14], 0
    mov ecx, [r13 + 0x10]
    and ecx, ebx
    mov dword ptr [r13 + 0x24], 0
    mov [r13 + 0x20], ecx
    mov dword ptr [r13 + 0x14], 1
    mov ecx, [r13 + 0x10]
    mov dword ptr [r13 + 0x24], 1
    mov [r13 + 0x20], ecx
    mov dword ptr [r13 + 0x70], 11
    xor r14d, r14d
2:  mov [r13 + 0x30], r14d
    mov ecx, [r13 + 0x34]
    call draw
    test al, 7
    jz 3f                          /* now and then a size that is no power of two */
    mov eax, ecx
3:  mov [r13 + 0x38], eax
    call place
    mov [r13 + 0x80], eax
    mov dword ptr [r13 + 0x84], 0
    call place
    mov [r13 + 0x90], eax
    mov dword ptr [r13 + 0x94], 0
    call place
    mov [r13 + 0xa0], eax
    mov dword ptr [r13 + 0xa4], 0
    mov dword ptr [r13 + 0x44], 1
    inc r14d
    cmp r14d, 4
    jb 2b
    mov dword ptr [r13 + 0x70], 15
    jmp turn

/* Descriptors: an address that is memory, nearly, or nowhere; a length; flags; a next one. Some hundred, then words anywhere. */
malform:
    mov r14d, 128
4:  call place
    mov rbx, rax
    call draw
    mov rcx, rax
    and ecx, 0x3ffffff             /* mostly memory */
    test eax, 0x70000000
    jnz 5f
    mov rcx, rax                   /* or anything */
5:  mov [rbx], rcx
    call draw
    shr rax, 20
    mov [rbx + 8], eax
    test eax, 3
    jz 6f
    and dword ptr [rbx + 8], 0xffff
6:  shr rax, 8
    and eax, 0x1ff0007
    mov [rbx + 12], eax
    dec r14d
    jnz 4b
    jmp turn

/* One of its queues, or one that it does not have. */
ring:
    call draw
    and eax, 7
    mov [r13 + 0x50], eax
    jmp turn

/* One turn in sixteen, and then one in sixteen: ports are few, and some of them end the machine. */
port:
    call draw
    test al, 15
    jnz ring
    shr rax, 8
    mov edx, eax
    and edx, 0xffff
    shr rax, 16
    test eax, 0x100
    jz 7f
    out dx, al
    in al, dx
    jmp turn
7:  test eax, 0x200
    jz 8f
    out dx, ax
    in ax, dx
    jmp turn
8:  out dx, eax
    in eax, dx
    jmp turn

/* An address in the rings. */
place:
    call draw
    and eax, RINGS_MASK
    add eax, RINGS
    ret

/* xorshift64* without its last step: it only has to be different. */
draw:
    mov rax, r12
    mov rdx, r12
    shr rdx, 12
    xor rax, rdx
    mov rdx, rax
    shl rdx, 25
    xor rax, rdx
    mov rdx, rax
    shr rdx, 27
    xor rax, rdx
    mov r12, rax
    ret
