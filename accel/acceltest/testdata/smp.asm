; Starts every application processor with INIT and SIPI; each logs its APIC ID
; from CPUID and counts itself. Port 0x81 tells how many there are.
%include "common.inc"
main:   mov si, ap
        mov di, 0x8000
        mov cx, ap.end - ap
        cld
        rep movsb
        PROTECTED
        mov ebx, 0xfee00000
        mov dword [ebx+0xf0], 0x13f
        mov dword [ebx+0x300], 0xc4500  ; INIT to all but self
        call settle
        mov dword [ebx+0x300], 0xc4608  ; SIPI to 0x8000
        call settle
        mov dword [ebx+0x300], 0xc4608
        in al, 0x81
.wait:  pause
        cmp [0x6000], al
        jne .wait
        DONE
settle: mov ecx, 1000
.loop:  pause
        loop .loop
        ret

bits 16
ap:     cli
        xor ax, ax
        mov ds, ax
        mov eax, 1
        cpuid
        shr ebx, 24
        mov al, bl
        out 0x80, al
        lock inc byte [0x6000]
.stay:  hlt
        jmp .stay
.end:
