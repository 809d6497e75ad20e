"""Answers written in different ways are the same where people mean the same, and never because something was lost.

``response | gold answer`` a line. What was lost in other checkers: the order of letters and values, a base, the second of
two units, everything but the last number of what cannot be read, the size of very small values.
"""

import time

import pytest

from mifo_verl.rewards.math_check import check, same
from mifo_verl.rewards.math_readable import is_readable
from mifo_verl.rewards.notation import unify

SAME = r"""
\boxed{(2, -1)} | (2,-1)
\boxed{\{1,2,3\}} | \{3,2,1\}
\boxed{3,2,1} | 1,2,3
\boxed{1 \text{ and } 2} | 1,2
x = 2 or x = 3. So \boxed{2, 3} | x=2 or x=3
\boxed{\pm 3} | 3,-3
\boxed{x=\pm\sqrt{2}} | \pm\sqrt{2}
\boxed{-3, 3} | \pm 3
\boxed{1 \pm \sqrt{5}} | 1+\sqrt5, 1-\sqrt5
\boxed{\dfrac{1}{2}} | 0.5
\boxed{\tfrac12} | \frac{1}{2}
\boxed{\frac12} | 1/2
\boxed{1/2} | \dfrac{1}{2}
\boxed{0.50} | 0.5
\boxed{1,234,567} | 1234567
\boxed{1{,}000} | 1000
\boxed{12\,345} | 12345
\boxed{\$12.50} | 12.50
\boxed{\$ 1,000} | 1000
\boxed{12 \text{ dollars}} | 12
\boxed{€5} | 5
\boxed{5 \text{ cm}^2} | 5
\boxed{5\text{ cm}^{2}} | 5 \text{ cm}^2
\boxed{30^\circ} | 30
\boxed{30^{\circ}} | 30^\circ
\boxed{30 \text{ degrees}} | 30^\circ
\boxed{\frac{\pi}{6}} | \pi/6
\boxed{3:30 \text{ p.m.}} | 3:30 \text{ PM}
\boxed{1.5 \times 10^{-3}} | 0.0015
\boxed{1.5\cdot10^3} | 1500
\boxed{6.02 \times 10^{23}} | 6.02e23
\boxed{x^2+2x+1} | 1+2x+x^2
\boxed{x(x-1)(x+1)} | x^3-x
\boxed{f(x)=2x+1} | 2x+1
\boxed{y = 2x+1} | 2x+1
\boxed{f(x) = x^2} | f(x)=x^2
\boxed{2\sqrt{3}} | \sqrt{12}
\boxed{3+4i} | 4i+3
\boxed{\ln e} | 1
\boxed{\infty} | +\infty
\boxed{-\infty} | -\infty
\boxed{(0,1)} | 0<x<1
\boxed{[2,\infty)} | x \ge 2
\boxed{x \le 3} | (-\infty, 3]
\boxed{x>5} | (5,\infty)
\boxed{1 < x \leq 4} | (1,4]
\boxed{(-\infty,0)\cup(0,\infty)} | x \neq 0
\boxed{101_2} | 101_{2}
\boxed{1101_{2}} | 1101_2
\boxed{2\frac{1}{2}} | \frac{5}{2}
\boxed{2\frac12} | 2.5
\boxed{0.\overline{142857}} | \frac17
\boxed{0.1\overline{6}} | 1/6
\boxed{\text{True}} | true
\boxed{\text{(C)}} | C
\boxed{C} | (C)
\boxed{\left(\frac{1}{2}, 3\right)} | (1/2, 3)
\boxed{\left[0, 1\right]} | [0,1]
\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}} | \begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}
\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}} | \begin{pmatrix}1\\2\end{pmatrix}
\boxed{\begin{pmatrix} 0.5 & 2 \end{pmatrix}} | \begin{pmatrix} \frac12 & 2 \end{pmatrix}
\boxed{42 \text{ apples}} | 42
\boxed{\text{42 apples}} | 42
\boxed{ 42 } | 42
\boxed{42.0} | 42
\boxed{+7} | 7
\boxed{−7} | -7
\boxed{2³} | 8
\boxed{π} | \pi
\boxed{½} | 0.5
\boxed{x≥2} | [2,\infty)
\boxed{1/3} | 0.\overline{3}
The answer is 42. | 42
Answer: \(42\) | 42
Final answer: $\frac{3}{4}$ | 0.75
Thus \boxed{5}, which is the answer. | 5
First \boxed{3}. Wait, no: \boxed{4} | 4
\boxed{a^2+b^2} | b^2+a^2
\boxed{\frac{a}{b}} | a/b
\boxed{\sin^2 x} | (\sin x)^2
\boxed{2\pi r} | 2 \pi r
\boxed{x = 5} | 5
\boxed{x=5, y=6} | (5,6)
\boxed{\frac{3}{5} \approx 0.6} | 3/5
\boxed{12 : 15} | 12:15
\boxed{2:3} | 4:6
\boxed{10^{-12}} | 1 \times 10^{-12}
\boxed{5 \text{ hours } 30 \text{ minutes}} | 5 hours 30 minutes
\boxed{\mathrm{A}} | A
\boxed{\mathbf{v} = (1,2)} | (1,2)
\boxed{y=3x-2} | 3x-y-2=0
\boxed{\frac{-1}{2}} | -\frac{1}{2}
\boxed{-\left(\frac{1}{2}\right)} | -0.5
\boxed{\frac{\pi}{6}\text{ radians}} | \frac{\pi}{6}
\boxed{30 \text{ degrees}} | \frac{\pi}{6}
\boxed{\frac{\pi}{6}} | 30^\circ
\boxed{2 \text{ radians}} | 2
\boxed{2 \text{ rad}} | 2 \text{ radians}
\boxed{90°} | 90 \text{ degrees}
\boxed{25^\circ C} | 25^\circ \text{C}
\boxed{25^\circ} | 25^\circ C
\boxed{$1,200$} | 1200
\boxed{£3.50} | \pounds 3.50
\boxed{12\%} | 0.12
\boxed{\text{Monday}} | monday
\boxed{\text{A and B}} | A, B
\boxed{x\in\{1,2\}} | \{1,2\}
\boxed{x \in (0,1)} | (0,1)
\boxed{\mathbb{Z}} | \mathbb{Z}
\boxed{k\pi, k \in \mathbb{Z}} | \pi k, k\in\mathbb{Z}
\boxed{n\pi + \frac{\pi}{2}} | \frac{\pi}{2}+n\pi
\boxed{\frac{3}{4}\,} | \frac34
\boxed{ \frac { 3 } { 4 } } | \frac{3}{4}
\boxed{\displaystyle \frac{3}{4}} | \frac34
\boxed{3\cdot 4} | 12
\boxed{\left\{1,2\right\}} | \{2,1\}
\boxed{\lbrace 1,2 \rbrace} | \{1,2\}
\boxed{\sqrt 2} | \sqrt{2}
\boxed{\sqrt2/2} | \frac{\sqrt2}{2}
\boxed{sqrt(2)} | \sqrt{2}
\boxed{2*pi} | 2\pi
\boxed{x^(2)} | x^2
\boxed{2^{1/2}} | \sqrt2
\boxed{1.0e-5} | 10^{-5}
\boxed{1E6} | 1000000
\boxed{10^6} | 1{,}000{,}000
\boxed{\text{one half}} | \text{one half}
\boxed{0.1(6)} | \frac16
\boxed{0.333\ldots} | \frac13
\boxed{1 \frac{3}{4}} | 1.75
\boxed{1\ 3/4} | \frac74
\boxed{-1\frac{1}{2}} | -1.5
\boxed{FF_{16}} | FF_{16}
\boxed{p=2,\ q=3} | (p,q)=(2,3)
\boxed{a=1, b=2, c=3} | 1,2,3
\boxed{3x^2 - 2x + C} | 3x^2-2x+C
\boxed{\lfloor 2.5 \rfloor} | 2
\boxed{|{-3}|} | 3
\boxed{\tan^{-1}(1)} | \frac{\pi}{4}
\boxed{Answer: 5} | 5
\boxed{5 \quad} | 5
\[ x = \boxed{5} \] | 5
$\boxed{5}$. | 5
\boxed{\boxed{5}} | 5
<answer>5</answer> | 5
The final answer is $\boxed{5}$. I hope it is correct. | 5
\boxed{1{.}5} | 1.5
\boxed{5 m/s} | 5 \text{ m/s}
\boxed{5 m/s} | 5
\boxed{9.8 \text{ m/s}^2} | 9.8 m/s^2
\boxed{18 \text{ km/h}} | 5 \text{ m/s}
So the answer is \fbox{42}. | 42
\boxed{5.} | 5
\boxed{42,} | 42
\boxed{\text{42}.} | 42
\boxed{\textbf{(B)}\ 12} | B
\boxed{4 4/9} | \frac{40}{9}
\boxed{2 1/3} | 2\frac{1}{3}
\boxed{\emptyset} | \varnothing
\boxed{5=x} | 5
\boxed{\begin{cases} x=1 \\ y=2 \end{cases}} | x=1,y=2
\boxed{28} | 28\%
The share is 28 percent. | 28\%
\boxed{50\%} | 50
\boxed{50} | 50\%
\boxed{50 \%} | 50\%
\boxed{75\ \%} | 75\%
\boxed{75.0\%} | 75\%
\boxed{\frac{3}{4}} | 75\%
\boxed{75\%} | 0.75
Therefore the share is $75\%$. | 0.75
\boxed{pi/2} | \dfrac{\pi}{2}
\boxed{14.0 + -1.0i} | 14 - i
\boxed{3.2e5} | 320000
\boxed{m \geq \sqrt{2}} | m \in [\sqrt{2}, +\infty)
\boxed{x<-1 \text{ or } x>1} | (-\infty,-1)\cup(1,\infty)
\boxed{x \neq 3} | \mathbb{R} \setminus \{3\}
\boxed{0.\overline{3}} | \frac{1}{3}
\boxed{0.\overline{36}} | \frac{4}{11}
\boxed{1 000} | 1000
\boxed{7~\text{kg}} | 7
\boxed{12~\mathrm{cm}} | 12
\boxed{\begin{pmatrix}-\frac{7}{4}&-2\\4&\frac{1}{4}\end{pmatrix}} | (\begin{pmatrix}-\frac{7}{4}&-2\\4&\frac{1}{4}\\\end{pmatrix})
\boxed{x^2/16 + y^2/12 = 1/4} | x^2/4 + y^2/3 = 1
\boxed{60°} | 60
\boxed{√2} | \sqrt2
\boxed{−½} | -\frac12
\boxed{(−∞, 2]} | (-\infty,2]
\boxed{f(x)=cx \text{ for any constant } c} | f(x)=cx
\boxed{\text{3:4}} | 3:4
\boxed{\text{(1,2)}} | (1,2)
\boxed{(1,2)} | x=1,y=2
\boxed{y=2, x=1} | x=1,y=2
\boxed{2,1} | 1,2
\boxed{\{2,1\}} | \{1,2\}
\boxed{5 feet 3 inches} | 5 \text{ feet } 3 \text{ inches}
\boxed{0.1} | 10\%
\boxed{12.5\%} | \frac{1}{8}
The answer is 75%. | 0.75
\boxed{4 \frac{4}{9}} | \frac{40}{9}
\boxed{-2 1/3} | -\frac{7}{3}
\boxed{3½} | 3.5
\boxed{x²+1} | x^2+1
\boxed{x^{2}} | x²
\boxed{0.1\overline{6}} | \frac{1}{6}
\boxed{0.\overline{142857}} | \frac{1}{7}
\boxed{72 clips} | 72
\boxed{72} | 72 \text{ clips}
<answer>42</answer> | 42
\boxed{x \ge 3} | [3,\infty)
\boxed{[3,\infty)} | x \ge 3
\boxed{-1<x<2} | (-1,2)
\boxed{(-1,2)} | -1<x<2
\boxed{-1 \le x \le 2} | [-1,2]
\boxed{x \in (-\infty,-1)\cup(1,\infty)} | x<-1 \text{ or } x>1
\boxed{2^{10}} | 1024
\boxed{1.6\times 10^{-19}} | 1.6 \cdot 10^{-19}
\boxed{\frac{1}{52!}} | \frac{1}{52!}
\boxed{\frac{\sqrt{2}}{2}} | \frac{1}{\sqrt{2}}
\boxed{(x+1)^2} | x^2+2x+1
\boxed{\sin^2 x+\cos^2 x} | 1
\boxed{\text{A}} | A
\boxed{(B)} | B
\boxed{\textbf{(B)}\ 12} | 12
\boxed{12} | \textbf{(B)}\ 12
\boxed{B} | \textbf{(B)}\ 12
\boxed{even} | \text{even}
\boxed{\text{Even}} | \text{even}
\boxed{Monday} | \text{Monday}
\boxed{11_3} | 11
\boxed{\text{FF}_{16}} | FF_{16}
\boxed{3:4} | \frac{3}{4}
\boxed{6:8} | 3:4
\boxed{10:30} | 10:30
\boxed{y = 2x+3} | y=2x+3
\boxed{2x+3} | y=2x+3
\boxed{y-2x-3=0} | y=2x+3
\boxed{x=2 \text{ or } x=3} | 2,3
\boxed{x=2, 3} | 2,3
\boxed{\pm 3} | -3,3
\boxed{1\pm\sqrt{2}} | 1+\sqrt{2}, 1-\sqrt{2}
\boxed{90^\circ} | 90
\boxed{90 degrees} | 90^\circ
\boxed{1{,}234} | 1234
\boxed{1,234} | 1234
\boxed{1\,234} | 1234
\boxed{1 234 567} | 1234567
\boxed{\$5.20} | 5.20
\boxed{5.2} | \$5.20
\boxed{i} | i
\boxed{3+4i} | 3+4i
\boxed{\begin{pmatrix}1\\2\end{pmatrix}} | \begin{pmatrix}1\\2\end{pmatrix}
\boxed{\begin{bmatrix}1\\2\end{bmatrix}} | \begin{pmatrix}1\\2\end{pmatrix}
\boxed{1, 3, 5, \dots, 2n-1} | 1,3,5,\ldots,2n-1
\boxed{\text{no solution}} | \text{No solution}
\boxed{\infty} | \infty
\boxed{e} | e
\boxed{2e} | 2e
\boxed{n \equiv 1 \pmod{4}} | n \equiv 1 \pmod{4}
\boxed{n \equiv 1 \pmod 4} | n\equiv1\pmod{4}
The answer is 3 or 5 | 3,5
So there are 12 apples. | 12
so it is $x=12$ | 12
so it is $12$ apples | 12
Hence x = 5 | 5
\boxed{5\text{ cm}^2} | 5
\boxed{25\pi \text{ square units}} | 25\pi
\boxed{5!} | 120
\boxed{f(x)=x^2} | x^2
\boxed{f(x)=x^2} | f(x)=x^2
\boxed{P(X)=\frac12} | \frac{1}{2}
\boxed{\angle ABC = 60^\circ} | 60
\boxed{AB = 5} | 5
\boxed{2+3=5} | 5
\boxed{\frac{1}{2}+\frac{1}{3}=\frac{5}{6}} | \frac{5}{6}
\boxed{\lim_{x\to 0} \frac{\sin x}{x}=1} | 1
\boxed{(1,2]} | (1,2]
\boxed{(-2, 3)} | (-2,3)
\boxed{(x,y)=(1,2)} | (1,2)
\boxed{(1,2),(3,4)} | (3,4),(1,2)
\boxed{1/2} | 0.5
\boxed{.5} | 0.5
\boxed{2.50} | 2.5
\boxed{\frac{3}{6}} | \frac12
\boxed{\dfrac{11}{2}} | 5.5
\boxed{x^2/16 + y^2/12 = 1/4} | x^2/4+y^2/3=1
\boxed{\sqrt[3]{2}} | 2^{1/3}
\boxed{2\sqrt3} | \sqrt{12}
\boxed{\log_2 8} | 3
\boxed{\binom{5}{2}} | 10
\boxed{\text{ABC}} | ABC
\boxed{-\infty < x \le 2} | (-\infty,2]
\boxed{\mathbb{R}} | (-\infty,\infty)
\boxed{\varnothing} | \emptyset
\boxed{\{\}} | \emptyset
\boxed{3.0} | 3
\boxed{$3$} | 3
\boxed{**3**} | 3
\fbox{$\frac12$} | \frac{1}{2}
\boxed{3,\!000} | 3000
\boxed{10 000 000} | 10^7
\boxed{2^{31}-1} | 2147483647
\boxed{100!} | 100!
\boxed{99!\cdot 100} | 100!
\boxed{28 percent} | 28
28 per cent | 28\%
The value is 60°. | 60
The answer is \(\frac{1}{2}\). | 0.5
The final answer is: $\boxed{7}$ | 7
\boxed{\mathrm{e}^{2}} | e^2
\boxed{\text{Mary}} | Mary
\boxed{2,000,000} | 2000000
\framebox{42} | 42
\boxed{28 \text{ percent}} | 28\%
\boxed{28\%} | 28 percent
The answer is 4 4/9. | \frac{40}{9}
\boxed{0.333...} | \frac13
\boxed{0.\dot{3}} | \frac13
\boxed{0.(3)} | \frac13
\boxed{0.1666\ldots} | \frac16
\boxed{0.3636...} | \frac{4}{11}
\boxed{2π} | 2\pi
\boxed{x ≤ 3} | (-\infty,3]
\boxed{7~kg} | 7
\boxed{7\,\text{kg}} | 7
\boxed{1e-20} | 10^{-20}
\boxed{\text{The answer is } 5} | 5
\boxed{\text{Answer: } 5} | 5
\boxed{\text{(B) } 12} | B
\boxed{(B)~12} | 12
\boxed{B) 12} | B
\boxed{3 h 40 min} | 3 \text{ hours } 40 \text{ minutes}
\boxed{(1,2)} | 1<x<2
\boxed{\text{5 apples}} | 5
\boxed{\text{42 cm}} | 42
\boxed{5 \times 10^3} | 5000
\boxed{n(n+1)/2} | \frac{n(n+1)}{2}
\boxed{\frac{1}{x}} | x^{-1}
\boxed{2ab} | 2ba
\boxed{\cos\theta} | \cos \theta
\boxed{+5} | 5
\boxed{10 cm} | 10\text{ cm}
\boxed{10 \text{ dollars}} | \$10
\boxed{\$10} | 10 dollars
\boxed{12:05} | 12:05
\boxed{5 \text{ and } 7} | 5,7
\boxed{5 \text{ and } 7} | 7,5
\boxed{\{(1,2),(3,4)\}} | (1,2),(3,4)
\boxed{x=1+\sqrt2, x=1-\sqrt2} | 1\pm\sqrt2
\boxed{a=1,b=2,c=3} | (1,2,3)
\boxed{a=1,b=2,c=3} | 1,2,3
\boxed{(a,b,c)=(1,2,3)} | (1,2,3)
\boxed{\frac{n!}{(n-k)!}} | \frac{n!}{(n-k)!}
\boxed{100 \mathrm{~cm}} | 100
\boxed{100 \text{ cm}^3} | 100
\boxed{9.8 \text{ m/s}^2} | 9.8
\boxed{\text{June 5}} | June 5
\boxed{\frac{x+2}{7}} | \frac{x}{7}+\frac{2}{7}
\boxed{\frac{3}{5},\frac{4}{5}} | 0.6,0.8
\boxed{(2516)_7} | 2516_7
\boxed{BADC} | \text{BADC}
\boxed{abc} | abc
\boxed{2 \text{ hours } 30 \text{ minutes}} | 2 \text{ hours } 30 \text{ minutes}
\boxed{2 \text{ hours and } 30 \text{ minutes}} | 2 \text{ hours } 30 \text{ minutes}
I think it's 12 | 12
\boxed{7;} | 7
\boxed{7\text{.}} | 7
\boxed{x=7.} | 7
\boxed{\frac{1}{2}.} | \frac12
\boxed{\text{(B)}} | B
\boxed{\mathbf{(B)}} | B
\boxed{\textbf{B}} | B
\boxed{1 1/2} | 1.5
\boxed{1\ 1/2} | \frac{3}{2}
\boxed{1\frac12} | \frac32
The answer is 1 1/2. | \frac{3}{2}
\boxed{x \in [3, \infty)} | [3,\infty)
\boxed{3 \le x} | [3,\infty)
\boxed{3 < x \leq 5} | (3,5]
\boxed{(3,5]} | 3 < x \leq 5
\boxed{x \neq 0, 1} | \mathbb{R}\setminus\{0,1\}
\boxed{x \ne 0 \text{ and } x \ne 1} | \mathbb{R}\setminus\{0,1\}
\boxed{(-\infty,0)\cup(0,\infty)} | x\neq 0
\boxed{a<2} | a<2
\boxed{2>a} | a<2
\boxed{x+y=5} | x+y=5
\boxed{y+x=5} | x+y=5
\boxed{2x+2y=10} | x+y=5
\boxed{b=4, a=3} | a=3, b=4
\boxed{(3,4)} | a=3, b=4
0.28 | 28\%
\boxed{280\%} | 2.8
\boxed{33\frac{1}{3}\%} | \frac{1}{3}
\boxed{66.67\%} | 66.67
\boxed{150\%} | 1.5
\boxed{-20\%} | -20
\boxed{0.2\%} | 0.002
It is 28 %. | 28
\boxed{sqrt(2)/2} | \frac{\sqrt2}{2}
\boxed{2*sqrt(3)} | 2\sqrt{3}
\boxed{2*x+1} | 2x+1
\boxed{x^2 + 2*x + 1} | (x+1)^2
\boxed{2**10} | 1024
\boxed{3*10^5} | 300000
\boxed{3.0e-4} | 0.0003
\boxed{1.5E6} | 1500000
\boxed{2pi} | 2\pi
\boxed{2 pi} | 2\pi
\boxed{exp(2)} | e^2
\boxed{log(2)} | \log 2
\boxed{ln(2)} | \ln 2
\boxed{sin(x)} | \sin x
\boxed{(1+sqrt(5))/2} | \frac{1+\sqrt5}{2}
\boxed{1/(2n)} | \frac{1}{2n}
\boxed{5 - 2i} | 5-2i
\boxed{14 - 1.0i} | 14-i
\boxed{0.\overline{9}} | 1
\boxed{2.\overline{3}} | \frac{7}{3}
\boxed{0.12\overline{34}} | \frac{611}{4950}
\boxed{0.272727...} | \frac{3}{11}
\boxed{12 000} | 12000
\boxed{12\,000} | 12000
\boxed{12\ 000} | 12000
\boxed{12~000} | 12000
\boxed{12 000} | 12,000
\boxed{5~\text{m}} | 5 \text{ m}
\boxed{5\;\mathrm{m/s}} | 5
\boxed{5\text{m}} | 5
\boxed{x^2 + 1 = 0} | x^2+1=0
\boxed{90°} | 90
\boxed{x³} | x^3
\boxed{¾} | 0.75
\boxed{2¾} | 2.75
\boxed{√3} | \sqrt{3}
\boxed{2√3} | 2\sqrt{3}
\boxed{√(x+1)} | \sqrt{x+1}
\boxed{−5} | -5
\boxed{3×4} | 12
\boxed{10⁻³} | 0.001
\boxed{x₁+x₂} | x_1+x_2
\boxed{(−∞, ∞)} | \mathbb{R}
\boxed{θ} | \theta
\boxed{f(x) = 2x \text{ for all real } x} | f(x)=2x
\boxed{f(x) = 2x \text{ where } x > 0} | 2x
\boxed{\text{True}} | True
\boxed{\text{yes}} | Yes
\boxed{\text{x = 5}} | 5
\boxed{\text{\$5}} | 5
\boxed{\frac{7}{20}} | 35\%
35 \% of the total | 35
\boxed{0.35} | 35\%
\boxed{35\text{ percent}} | 0.35
The probability is 12.5 percent. | \frac18
\boxed{12.5\,\%} | 12.5
\boxed{\frac{100}{3}\%} | 33\frac13\%
\boxed{5~\mathrm{kg}} | 5\text{ kg}
\boxed{5\ \mathrm{kg}} | 5
\boxed{12\:345} | 12345
\boxed{12\;345} | 12345
\boxed{1\,234.5} | 1234.5
\boxed{3 ~ \text{apples}} | 3
\boxed{\frac{1}{2}\text{ mile}} | 0.5
\boxed{3.} | 3
\boxed{7!} | 5040
\boxed{\text{42}!} | 42!
\boxed{x = 4,} | 4
\boxed{(3, 4).} | (3,4)
\boxed{3 1/2} | 3.5
\boxed{7 3/8} | \frac{59}{8}
\boxed{-1 3/4} | -1.75
\boxed{10 1/2 \text{ hours}} | 10.5
The answer is 2 3/5. | \frac{13}{5}
\boxed{0.\bar{6}} | \frac23
\boxed{0.\overline{27}} | \frac{3}{11}
\boxed{1.\overline{142857}} | \frac87
\boxed{.\overline{3}} | \frac13
\boxed{0.1\bar{6}} | 1/6
\boxed{0.58\overline{3}} | \frac{7}{12}
\boxed{45°} | 45^\circ
\boxed{⅓} | \frac13
\boxed{2⅔} | \frac83
\boxed{x³ − 2x} | x^3-2x
\boxed{−3} | -3
\boxed{3 ± √5} | 3\pm\sqrt5
\boxed{√(17)} | \sqrt{17}
\boxed{2·√3} | 2\sqrt3
\boxed{π/4} | \frac{\pi}{4}
\boxed{x ∈ [0,1]} | [0,1]
\boxed{(-∞,2)∪(3,∞)} | (-\infty,2)\cup(3,\infty)
\boxed{a ≤ 5} | (-\infty,5]
\boxed{x \le -1 \text{ or } x \ge 1} | (-\infty,-1]\cup[1,\infty)
\boxed{0 < x < 1} | (0,1)
\boxed{x > 0} | (0,+\infty)
\boxed{k \in (0, 4)} | 0<k<4
\boxed{t \ge 5} | t\in[5,\infty)
\boxed{|x| < 2} | (-2,2)
\boxed{x\ne -2} | (-\infty,-2)\cup(-2,\infty)
\boxed{3pi/4} | \frac{3\pi}{4}
\boxed{sqrt(2)/2} | \frac{\sqrt{2}}{2}
\boxed{6.02e23} | 6.02\times10^{23}
\boxed{1.5e-3} | 0.0015
\boxed{x^2+2x+1} | (x+1)^2
\boxed{2^(1/2)} | \sqrt2
\boxed{3/4*pi} | \frac{3\pi}{4}
\boxed{e^(2x)} | e^{2x}
\boxed{(a+b)^2} | a^2+2ab+b^2
\boxed{ln(3)/2} | \frac{\ln 3}{2}
\fbox{\frac{3}{4}} | 0.75
\fbox{12} | 12
So \boxed{\fbox{3}} | 3
\boxed{\boxed{3}} | 3
\boxed{\text{The answer is 12}} | 12
\boxed{\text{about } 12} | 12
\boxed{\text{12 \text{cm}}} | 12
\boxed{n = 12 \text{ sides}} | 12
\boxed{\text{Area} = 12} | 12
\boxed{12 \text{ sq units}} | 12
\boxed{\text{x=3 or x=4}} | 3,4
\boxed{x=3\text{ and }x=4} | 3,4
\boxed{\textbf{(D)}\ 35} | D
\boxed{\textbf{(E) }\frac{3}{4}} | E
\boxed{\textbf{(C)}~13} | C
\boxed{\text{(A) } 7} | A
\boxed{\mathrm{(B)}\ 12} | B
\boxed{\textbf{(B)} 12} | \textbf{(B)}
<answer>C</answer> | C
<answer>\boxed{C}</answer> | C
<answer> (C) </answer> | C
<answer>3/4</answer> | \frac34
<answer>The answer is 12.</answer> | 12
<answer>$12$</answer> | 12
\boxed{C. 15} | C
\boxed{\text{Option C}} | C
\boxed{C: 15} | C
\boxed{15 dollars} | 15
\boxed{15 square meters} | 15
\boxed{60 mph} | 60
\boxed{60 \text{ miles per hour}} | 60
\boxed{60\text{ km/h}} | 60
\boxed{300\,000\ \text{km/s}} | 300000
\boxed{8\pi\text{ cm}^2} | 8\pi
\boxed{\$1{,}234.56} | 1234.56
\boxed{\text{\$}12} | 12
\boxed{12\text{¢}} | 12
\boxed{€12} | 12
\boxed{72 clips.} | 72
\boxed{15} | 15 \text{ people}
\boxed{0.5} | \dfrac12
\boxed{\left(\frac{1}{2}, 3\right)} | (0.5, 3)
\boxed{\left[ -2, 3 \right)} | [-2,3)
\boxed{\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}} | \begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix}
\boxed{\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}} | -2
\boxed{\left(\begin{array}{c} 1 \\ 2 \end{array}\right)} | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\boxed{[[1,2],[3,4]]} | \begin{pmatrix}1&2\\3&4\end{pmatrix}
\boxed{\{1, 2, 3\}} | \{3,2,1\}
\boxed{1, 2, 3} | \{1,2,3\}
\boxed{\{-1, 1\}} | \pm 1
\boxed{x^2+y^2=25} | y^2+x^2=25
\boxed{3x-y=2} | y=3x-2
\boxed{y = \frac{1}{2}x + 3} | x-2y+6=0
\boxed{4x^2 + 4y^2 = 100} | x^2+y^2=25
\boxed{x = \frac{-1 \pm \sqrt{5}}{2}} | \frac{-1+\sqrt5}{2}, \frac{-1-\sqrt5}{2}
\boxed{\sin^{-1}(1/2)} | \frac{\pi}{6}
\boxed{\arctan 1} | \frac{\pi}{4}
\boxed{\cot x} | \frac{\cos x}{\sin x}
\boxed{\log 100} | \log(100)
\boxed{\ln e^3} | 3
\boxed{1+2+3} | 6
\boxed{i^2} | -1
\boxed{2\operatorname{cis}(\pi/2)} | 2i
\boxed{\lfloor 3.7 \rfloor} | 3
\boxed{|{-5}|} | 5
\boxed{10101_2} | 10101_{2}
\boxed{\text{A3}_{16}} | A3_{16}
\boxed{21_{\text{three}}} | 21_3
\boxed{3:2} | 6:4
\boxed{3 \text{ to } 2} | 3:2
\boxed{8:00 \text{ p.m.}} | 8:00 PM
\boxed{2 \text{ hr } 30 \text{ min}} | 2 \text{ hours } 30 \text{ minutes}
\boxed{5 lb 3 oz} | 5 \text{ pounds } 3 \text{ ounces}
\boxed{\text{Tuesday}} | Tuesday
\boxed{\text{YES}} | Yes
\boxed{\text{Infinitely many}} | infinitely many
\boxed{\text{No}} | no
\boxed{F = ma} | F=ma
\boxed{\frac{mv^2}{2}} | \frac12 m v^2
\boxed{v_0\sqrt{2h/g}} | v_{0} \sqrt{\frac{2h}{g}}
\boxed{\frac{GM}{R^2}} | \frac{G M}{R^{2}}
\boxed{\lambda_{\text{max}}} | \lambda_{\max}
\boxed{E = mc^2} | mc^2
\boxed{2\times 3^5} | 486
\boxed{2\cdot 10^{-3}} | 0.002
\boxed{10^{-3}} | 0.001
\boxed{1 \times 10^{6}} | 10^6
\boxed{n^{2}-n+1} | n^2 - n + 1
\boxed{2^{n+1}-2} | 2(2^n-1)
\boxed{\frac{n(n-1)}{2}} | \binom{n}{2}
\boxed{\binom{n}{2}} | \frac{n^2-n}{2}
\boxed{C(5,2)} | 10
\boxed{\sqrt[3]{8}} | 2
\boxed{∛8} | 2
\boxed{8^{1/3}} | 2
\boxed{x \in \mathbb{R}} | \mathbb{R}
\boxed{\text{all real numbers}} | (-\infty,\infty)
\boxed{\mathbb{R} \backslash \{0\}} | x\neq 0
\boxed{\text{undefined}} | undefined
\boxed{DNE} | \text{DNE}
\boxed{\frac{3}{2}, -\frac{1}{2}} | -0.5, 1.5
\boxed{a = 2, b = -3} | (2,-3)
\boxed{(a, b) = (2, -3)} | a=2, b=-3
\boxed{a=2; b=-3} | a=2,b=-3
\boxed{x=1, y=2, z=3} | (1,2,3)
\boxed{p = 3, q = 5} | q=5, p=3
The answer is **42**. | 42
**Answer:** 42 | 42
Final Answer: 42 | 42
#### 42 | 42
#### 1,234 | 1234
#### $42 | 42
#### 42 dollars | 42
The final answer is $\frac{3}{4}$. I hope it is correct. | 0.75
Answer: \frac{3}{4} | 0.75
So, the answer is x = 7. | 7
Therefore, $x = \boxed{7}$. | 7
The answer is: 7 apples | 7
\boxed{7}\boxed{7} | 7
\boxed{\dfrac{3}{4}}$ | 3/4
$$\boxed{3/4}$$ | \frac{3}{4}
\boxed{ \frac{3}{4} } | \frac{3}{4}
\boxed{\frac 34} | 0.75
\boxed{\frac34} | 0.75
\boxed{\tfrac{3}{4}} | 0.75
\boxed{3\div4} | 0.75
\boxed{ 3 / 4 } | 0.75
\boxed{100\pi} | 100 \pi
\boxed{1.0} | 1
\boxed{01} | 1
\boxed{0} | 0.0
\boxed{-0} | 0
\boxed{1e3} | 1000
\boxed{12 345 678} | 12345678
\boxed{$12{,}345$} | 12345
\boxed{\color{red}{5}} | 5
\boxed{\mathbf{5}} | 5
\boxed{\bf 5} | 5
\boxed{\underline{5}} | 5
\boxed{\displaystyle\frac{5}{2}} | 2.5
\boxed{20 \text{ cm}^2} | 20 \text{ cm}^2
\boxed{2000\text{ cm}^2} | 0.2 \text{ m}^2
\boxed{1 \text{ hour}} | 60 \text{ minutes}
\boxed{90\text{ minutes}} | 1.5 \text{ hours}
\boxed{2.5 \text{ dollars}} | 250 \text{ cents}
\boxed{5 \text{ seconds}} | 5 \text{ s}
\boxed{5\text{ liters}} | 5 \text{ L}
\boxed{3 \text{ miles}} | 3
\boxed{GMm/R^2} | \frac{GMm}{R^2}
\boxed{\frac{G M m}{R^{2}}} | \frac{GmM}{R^2}
\boxed{N(N+1)/2} | \frac{n(n+1)}{2}
\boxed{f'(x)=2x} | 2x
\boxed{y' = 2xy} | y'=2xy
\boxed{\frac{dy}{dx}=2x} | 2x
\boxed{e^{i\pi}} | -1
\boxed{(1+i)^2} | 2i
\boxed{\frac{1}{i}} | -i
\boxed{-i} | \frac{1}{i}
\boxed{\sqrt{-4}} | 2i
\boxed{3-2i} | -2i+3
\boxed{\frac{1+i}{\sqrt2}} | e^{i\pi/4}
\boxed{a_{n+1} = 2a_n} | a_{n+1}=2a_n
\boxed{x_1 = 2, x_2 = 3} | x_1=2,x_2=3
\boxed{x_{1}=2,\ x_{2}=3} | 2,3
\boxed{\coth(x)} | \frac{\cosh x}{\sinh x}
\boxed{\frac{1}{2}at^2} | \frac{1}{2} a t^{2}
\boxed{\sqrt{2gh}} | \sqrt{2 g h}
\boxed{v = \sqrt{2gh}} | \sqrt{2gh}
\boxed{PV=nRT} | PV=nRT
\boxed{\frac{nRT}{V}} | \frac{n R T}{V}
\boxed{n_1 \sin\theta_1} | n_{1}\sin \theta_{1}
\boxed{2\pi\sqrt{L/g}} | 2 \pi \sqrt{\frac{L}{g}}
\boxed{\frac{\hbar}{2}} | \hbar/2
\boxed{10.5\%} | 0.105
\boxed{0.105} | 10.5 \%
\boxed{\text{three}} | 3
\boxed{\frac{2}{3} \text{ of the cake}} | \frac23
\boxed{5 \text{ or } -5} | \pm 5
\boxed{x=-5, 5} | \pm 5
\boxed{(0,0), (1,1)} | (1,1),(0,0)
\boxed{x^2 - 1 = 0} | x^2=1
\boxed{y-1 = 2(x-3)} | y = 2x-5
\boxed{\frac{x}{2}+\frac{y}{3}=1} | 3x+2y=6
\boxed{r = 2\cos\theta} | r=2\cos\theta
\boxed{a^{-1}} | \frac1a
\boxed{\frac{-3}{4}} | -\frac{3}{4}
\boxed{-\frac{3}{-4}} | \frac{3}{4}
\boxed{2\frac{1}{2}} | \frac52
\boxed{2 \tfrac{1}{2}} | 2.5
\boxed{1.25 \times 10^{5}} | 125,000
\boxed{4.5 million} | 4500000
\boxed{4.5 \text{ million}} | 4{,}500{,}000
\boxed{3 \text{ billion}} | 3000000000
\boxed{2^{10} - 1} | 1023
\boxed{2^{2^3}} | 256
\boxed{\dfrac{\sqrt{3}}{3}} | \frac{1}{\sqrt3}
\boxed{\cos 60^\circ} | \frac12
\boxed{\sin 30^\circ} | 0.5
\boxed{120^{\circ}} | 120
\boxed{120 \text{ degrees}} | 120^\circ
\boxed{\frac{2\pi}{3}} | \frac{2\pi}{3} \text{ radians}
\boxed{\$3.50} | 3.5
\boxed{\$ 3.50} | 3.50
\boxed{Rs. 500} | 500
\boxed{USD 500} | 500
\boxed{-\$20} | -20
\boxed{£20} | 20
The answer is $\$20$. | 20
The answer is \$20. | 20
The total cost is $20. | 20
So he needs 3 more. The answer is 3 | 3
The number is 1,234,567. | 1234567
It has 12 edges. | 12
x = 12 | 12
12 | 12
$12$ | 12
**12** | 12
**Final Answer**: $\frac{1}{2}$ | 0.5
The final answer is (C) | C
The correct option is (C). | C
Therefore the answer is $\textbf{(C)}$. | C
Thus, the correct choice is **C**. | C
<answer>x=5</answer> | 5
<answer>5 apples</answer> | 5
\boxed{1101_{(2)}} | 1101_2
\boxed{1101 \text{ (base 2)}} | 1101_2
\boxed{1101\text{ in base }2} | 1101_{\text{base }2}
\boxed{\begin{aligned} x &= 42 \end{aligned}} | 42
\boxed{\begin{aligned}x&=1\\y&=2\end{aligned}} | x=1,y=2
\boxed{\left\{\begin{array}{l}x=1\\y=2\end{array}\right.} | x=1,y=2
\boxed{x=1\\y=2} | x=1,y=2
\boxed{\hspace{1mm}42} | 42
\boxed{7\text{,}} | 7
\boxed{\text{empty set}} | \emptyset
\boxed{1\colon 2} | 1:2
The answer is 3 hours 40 minutes. | 3 \text{ hours } 40 \text{ minutes}
It takes 3 hours and 40 minutes. | 3 \text{ hours } 40 \text{ minutes}
\boxed{20\% \text{ increase}} | 20
\boxed{p = 20\%} | 0.2
\boxed{4.5x10^3} | 4500
\boxed{cbrt(2)} | \sqrt[3]{2}
\boxed{abs(x)} | |x|
\boxed{floor(3.7)} | 3
\boxed{n choose 2} | \binom{n}{2}
\boxed{log_2(8)} | 3
\boxed{x<-1 \lor x>1} | (-\infty,-1)\cup(1,+\infty)
\boxed{x<-1, x>1} | (-\infty,-1)\cup(1,+\infty)
\boxed{x>-1, x<1} | (-1,1)
\boxed{x \in \mathbb{R}, x \neq 3} | \mathbb{R} \setminus \{3\}
\boxed{\mathbb{R} - \{3\}} | \mathbb{R} \setminus \{3\}
\boxed{9 \mathrm{~m}/\mathrm{s}} | 9
\boxed{Ωψ} | \Omega\psi
\boxed{⌊2.5⌋} | 2
\boxed{x \equiv 5 \pmod 6} | x\equiv 5\ (\mathrm{mod}\ 6)
\boxed{f(x)=cx, c\in\mathbb{R}} | f(x)=cx
\boxed{\text{The area is } 12} | 12
\boxed{\text{Minimum value: } 12} | 12
\boxed{\text{Therefore, } 12} | 12
\boxed{\text{the ratio is } 5:7} | 5:7
\boxed{p \lor q} | p \vee q
\boxed{\frac{1+\sqrt{5}}{2}} | 2\cos 36^\circ
The answer is 12, so Anna is right. | 12
\boxed{20\% increase} | 20\%
\boxed{20\% \text{ increase}} | 20\% increase
\boxed{p=50\%} | p=50\%
\boxed{p=50} | p=50\%
\boxed{a=3\%, b=4\%} | b=4\%, a=3\%
\boxed{\\frac{1}{2}} | \frac{1}{2}
\boxed{\frac{1}{2}} | \\frac{1}{2}
\boxed{5\\%} | 5\%
\boxed{2\\pi} | 2\pi
\boxed{\frac{1}{4} = 25\%} | \frac{1}{4}
\boxed{\frac{1}{4} = 25\%} | 25\%
\boxed{\{\}} | \varnothing
x = 7, so done | 7
The value of x is 7, therefore we are done | 7
John has 5 because he ate two | 5
The answer is 42, because 42 works | 42
The answer is 42 because the other claim is incorrect. | 42
"""

DIFFERENT = r"""
\boxed{(1,2)} | (2,1)
\boxed{(1,2)} | [1,2]
\boxed{[1,2)} | [1,2]
\boxed{3} | \pm 3
\boxed{\pm 3} | 3
\boxed{2} | 2,3
\boxed{x=2 \text{ or } x=4} | 2,3
\boxed{1e-12} | 1e-13
\boxed{10^{-12}} | 0
\boxed{0.33} | \frac{1}{3}
\boxed{0.333} | \frac13
\boxed{0.3} | 0.\overline{3}
\boxed{5 \text{ cm}} | 5 \text{ m}
\boxed{5 \text{ kg}} | 5 \text{ g}
\boxed{3:30 \text{ a.m.}} | 3:30 \text{ p.m.}
\boxed{101_2} | 101_3
\boxed{x^2+1} | x^2-1
\boxed{x>5} | x \ge 5
\boxed{x<5} | x>5
\boxed{f(x)=2x} | f(x)=3x
\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}} | \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}
\boxed{\begin{pmatrix} 1 & 2 \end{pmatrix}} | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\boxed{2:3} | 3:2
\boxed{\frac{1}{2}} | 2
\boxed{AB} | BA
\boxed{B} | A
\boxed{} | 5
The answer is | 5
\boxed{4 | 4
\boxed{5 or 7} | 5
\boxed{1 + 1/e} | 1 - 1/e
\boxed{1-\frac{1}{\mathrm{e}}} | 1+\frac{1}{\mathrm{e}}
\boxed{n=1,2,3} | n=2,3,4
\boxed{1,3,5,\ldots,2n-1} | 1,2,\ldots,n
\boxed{12:00} | 1:00
\boxed{\frac{1}{2004!}} | \frac{1}{2006!}
\boxed{2^{-99}} | 2^{-98}
\boxed{\frac{1}{3\cdot2^{2006}}} | \frac{2^{2005}+1}{3\cdot2^{2006}}
\boxed{3x+4y+14=0} | 3x-y+13=0
\boxed{4\sqrt{2}} | 4
\boxed{30^\circ} | 30 \text{ radians}
\boxed{100000001} | 100000000
\boxed{2\frac{1}{3}} | \frac{2}{3}
\boxed{yes} | no
\boxed{1,2} | 12
\boxed{1,234} | 1.234
\boxed{\$5} | 50
\boxed{x=1,y=2} | x=2,y=1
\boxed{(0,1.5)} | (0,1)
\boxed{0 \le x < 1} | 0<x<1
\boxed{e^x} | e^{-x}
\boxed{30 \text{ degrees}} | 30 \text{ radians}
\boxed{60^\circ} | \frac{\pi}{6}
\boxed{25^\circ C} | 25^\circ F
\boxed{12\%} | 1.2
\boxed{-1\frac{1}{2}} | -0.5
\boxed{F0_{16}} | FF_{16}
\boxed{(p,q)=(3,2)} | p=2,q=3
\boxed{a=1, b=2, c=3} | a=1,b=3,c=2
\boxed{x^2+C} | x^3+C
\boxed{k\pi} | 2k\pi
\boxed{\mathbb{Z}} | \mathbb{R}
\boxed{x\in\{1,2\}} | \{1,3\}
\boxed{\text{A and B}} | A, C
\boxed{0.1\overline{6}} | 0.\overline{16}
\boxed{1{,}000} | 1
\boxed{6.02\times10^{22}} | 6.02\times10^{23}
\boxed{\frac{1}{4} \text{ or } \frac12} | \frac14
\boxed{5 \text{ and } 6} | 5
\boxed{5 hours 30 minutes} | 5 hours 20 minutes
\boxed{9:05} | 9:50
I think \boxed{5} but maybe \boxed{6} | 5
\boxed{\text{cannot be determined}} | 5
\boxed{?} | 5
\boxed{\ldots} | 5
\boxed{n} | 5
\boxed{(0,1]} | (0,1)
\boxed{(0,1)\cup(2,3)} | (0,1)\cup(2,4)
\boxed{\sqrt[3]{2}} | \sqrt{2}
\boxed{\begin{pmatrix}1\\2\\3\end{pmatrix}} | \begin{pmatrix}1\\2\end{pmatrix}
\boxed{5 \text{ km/s}} | 5 \text{ m/s}
\boxed{5 km/h} | 5 mph
\boxed{9.8 m/s} | 9.8 \text{ m/s}^2
\boxed{6 m/s} | 5 m/s
\boxed{2516_8} | 2516_{7}
\boxed{1011_3} | 1011_2
\boxed{13_5} | 13_{8}
\boxed{3 \text{ hours } 20 \text{ minutes}} | 3 \text{ hours } 40 \text{ minutes}
\boxed{2 \text{ h } 5 \text{ min}} | 2 \text{ h } 50 \text{ min}
Let x = 5. Then x + 2 = 7, so we need to compute y from | 7
\boxed{abc} | cab
\boxed{BA} | AB
\boxed{CAB} | ABC
\boxed{ACGT} | TGCA
The answer is 4 4/9. | 4
\boxed{10:30} | \frac{1}{3}
\boxed{(1,2)} | \{1,2\}
\boxed{x+y=5} | 5
\boxed{(4,3)} | a=3, b=4
\boxed{4, 3} | a=3, b=4
\boxed{\frac{1}{2006!}} | \frac{1}{2004!}
\boxed{\frac{1}{3 \cdot 2^{2006}}} | \frac{2^{2005}+1}{3 \cdot 2^{2006}}
\boxed{1.6\times 10^{-19}} | 9.1\times 10^{-31}
\boxed{\frac{1}{52!}} | \frac{1}{48!}
\boxed{1, 3, 5, \ldots, 2n-1} | 1, 2, \ldots, n
Final answer is $\sum_{k=0}^n\bigl(k\bigr)$. I hope. | 0
\boxed{0} | \sum_{k=0}^n\bigl(k\bigr)
\boxed{2} | 1, 2, \ldots, n
\boxed{n \equiv 1 \pmod{4}} | n \equiv 1 \pmod{3}
\boxed{x \equiv 3 \pmod{7}} | x \equiv 3 \pmod{11}
\boxed{\begin{cases} x=1 \\ y=2 \end{cases}} | \begin{cases} x=5 \\ y=2 \end{cases}
\boxed{(2,1)} | x=1,y=2
\boxed{(2,1)} | (1,2)
\boxed{3 \text{ hours}} | 3 \text{ hours } 40 \text{ minutes}
\boxed{5 \text{ ft } 3 \text{ in}} | 5 \text{ feet } 7 \text{ inches}
\boxed{0.1} | 1\%
\boxed{0.5\%} | 0.5
\boxed{75} | 0.75
\boxed{0.3} | \frac{1}{3}
\boxed{72 \text{ clips}} | 73
\boxed{x > 3} | [3,\infty)
\boxed{x>3} | y>3
\boxed{10^{400}} | 10^{500}
\boxed{10^{-20}} | 0
\boxed{10^{-20}x} | 10^{-21}x
\boxed{(x+1)^2} | x^2+2x+2
\boxed{A, B} | A
\boxed{\text{(C)}} | B
\boxed{\textbf{(B)}\ 12} | 13
\boxed{odd} | \text{even}
\boxed{yes} | \text{No}
\boxed{4:3} | 3:4
\boxed{5=x} | 6
\boxed{2x+3=7} | 2
\boxed{y=2x+4} | y=2x+3
\boxed{x=3} | 2,3
\boxed{2,3,4} | 2,3
\boxed{3+4i} | 3-4i
\boxed{\begin{pmatrix}1\\3\end{pmatrix}} | \begin{pmatrix}1\\2\end{pmatrix}
The answer is 3 or 5 | 5
I get 12, then check that the remaining parts of it all | 12
\boxed{25\pi} | 25
\boxed{5x} | 5
\boxed{5 x} | 5
\boxed{x} | 5x
\boxed{a^2+b^2=c^2} | c^2
\boxed{xy=5} | 5
\boxed{2+3=6} | 6
\boxed{[1,2]} | (1,2)
\boxed{(1,2]} | [1,2)
\boxed{(x,y)=(1,2)} | (2,1)
\boxed{(1,2),(3,4)} | (3,4),(2,1)
\boxed{3.14} | \pi
\boxed{\frac{x^2}{4}+\frac{y^2}{3}=1} | \frac{x^2}{3}+\frac{y^2}{4}=1
\boxed{10 \text{ or } 12} | 10
\boxed{BCA} | \text{ABC}
\boxed{17:00} | 5
\boxed{1e-20} | 1e-30
\boxed{\text{more than } 5} | 5
\boxed{5 \text{ or more}} | 5
Let x = 5. Then x + 2 = 7, so | 7
It is 5 or maybe 7 | 7
The answer is 5, or maybe 7 | 5
The answer is 5, or maybe 7 | 7
\boxed{y=5} | x=5
\boxed{x>5} | 5
\boxed{x\ne 5} | 5
\boxed{x = 5, y = 6} | 5
\boxed{n(n-1)/2} | \frac{n(n+1)}{2}
\boxed{ab} | ba
\boxed{-5} | 5
\boxed{5} | -5
\boxed{\sqrt{5}} | 5
\boxed{1+i} | 1+j
\boxed{12:05} | 12:50
\boxed{\text{June 6}} | June 5
\boxed{2^{2005}} | 2^{2006}
\boxed{\frac{1}{2^{100}}} | \frac{1}{2^{101}}
\boxed{10^{-16}} | 10^{-17}
\boxed{\sqrt{2}\cdot 10^{-20}} | \sqrt{3}\cdot 10^{-20}
\boxed{1101_2} | 1101_3
\boxed{\mathrm{CAB}} | ABC
\boxed{\text{BAC}} | \text{ABC}
\boxed{xyz} | zyx
\boxed{2 hours 30 minutes} | 2 \text{ hours and } 20 \text{ minutes}
\boxed{5 \text{ ft } 7 \text{ in.}} | 5 \text{ ft } 9 \text{ in.}
\boxed{1 \text{ kg } 200 \text{ g}} | 1 \text{ kg } 300 \text{ g}
\boxed{30^\circ 15'} | 30^\circ 45'
Then we have x = 3, and therefore the | 3
So the sum is 10. Now, to find the final value, we need | 10
Since 3 + 4 = 7 we have to | 7
It could be 12, it could be 15 | 12
Perhaps 12. Or 15. | 12
\boxed{12} or \boxed{15} | 12
\boxed{\textbf{(C) } 7} | B
\boxed{\text{(B)}\ 12} | \text{(C)}\ 12
\boxed{11/2} | \frac32
The answer is 1 1/2. | 1
\boxed{(3,5)} | 3 < x \leq 5
\boxed{a\le 2} | a<2
\boxed{\begin{cases} x=2 \\ y=1 \end{cases}} | x=1,y=2
\boxed{(1, 2), (3, 4)} | (1,2)
\boxed{x = 1} | x=1, y=2
\boxed{x-y=5} | x+y=5
\boxed{\{2,1\}} | (1,2)
\boxed{[1,2]} | \{1,2\}
\boxed{1,2} | (2,1)
\boxed{2.8} | 28\%
\boxed{0.\overline{3}} | 0.3
\boxed{\frac{1}{1000!}} | \frac{1}{1001!}
\boxed{2^{1000}} | 2^{1001}
\boxed{10^{1000}} | 10^{1001}
\boxed{1000!} | 999!
\boxed{6.02\times10^{23}} | 6.03\times10^{23}
\boxed{10^{-100}} | 10^{-200}
\boxed{e^{-100}} | e^{-200}
\boxed{e^{-1000}} | 0
\boxed{n} | 1+2+\ldots+n
\boxed{3} | 1,2,3,\ldots
\boxed{1} | x \equiv 1 \pmod 2
\boxed{4} | n \equiv 1 \pmod{4}
\boxed{3} | f(n)=\begin{cases} n/2 & n \text{ even} \\ 3n+1 & n \text{ odd}\end{cases}
\boxed{ba} | ab
\boxed{XYZ} | ZYX
\boxed{DCBA} | ABCD
\boxed{BAC} | ABC
\boxed{\mathrm{BAC}} | ABC
\boxed{A C B} | A B C
\boxed{A, C, B} | (A, B, C)
\boxed{NET} | TEN
\boxed{\triangle ACB} | \triangle ABC
\boxed{dog} | god
\boxed{AAB} | ABA
\boxed{1+2+\cdots+n} | n
\boxed{7} | 1, 3, 5, \ldots, 7
\boxed{5} | \text{approximately } 5 \text{ or } 6
\boxed{x \equiv 2 \pmod{5}} | 5
\boxed{5} | x \equiv 2 \pmod{5}
\boxed{a_1 = 1, a_{n+1} = a_n + 2} | 2
\boxed{2} | a_1 = 1, a_{n+1} = a_n + 2
\boxed{4k+1} | 4k+3
\boxed{\begin{cases} 1 & n \text{ even} \\ 0 & n \text{ odd} \end{cases}} | 0
\boxed{0} | \begin{cases} 1 & n \text{ even} \\ 0 & n \text{ odd} \end{cases}
\boxed{\text{no solution}} | 0
\boxed{0} | \text{no solution}
\boxed{n!+1 \text{ for } n \ge 3} | 3
\boxed{\sum_{i=1}^{5} | 5
\boxed{\frac{1}{2} | 2
The answer is $\prod_{k=1}^{n} \bigl( 3 \bigr)$. | 3
\boxed{3 \mid n} | 3
\boxed{f(n) = n^2 + \ldots + 4} | 4
\boxed{(1,2]} | (1,2)
\boxed{\{1,2\}} | (1,2)
\boxed{1} | \{1,2\}
\boxed{(2,1),(4,3)} | (1,2),(3,4)
\boxed{x=2,y=1} | (1,2)
\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}} | \begin{pmatrix}1&3\\2&4\end{pmatrix}
\boxed{\begin{pmatrix}1\\2\end{pmatrix}} | \begin{pmatrix}2\\1\end{pmatrix}
\boxed{1,2} | 1
\boxed{1} | 1,2
\boxed{1 \text{ or } 2} | 2
\boxed{(1,2,3)} | (1,2)
\boxed{2x+y=7} | 7
\boxed{7} | 2x+y=7
\boxed{3 \text{ hours } 20 \text{ minutes}} | 3 \text{ h } 40 \text{ min}
\boxed{3 \text{ hours}} | 3 \text{ h } 40 \text{ min}
\boxed{5 \text{ feet } 3 \text{ inches}} | 5 \text{ feet } 8 \text{ inches}
\boxed{2 \text{ km } 300 \text{ m}} | 2 \text{ km } 500 \text{ m}
\boxed{1 hour and 30 minutes} | 1 hour and 45 minutes
\boxed{4 \text{ weeks } 2 \text{ days}} | 4 \text{ weeks } 3 \text{ days}
\boxed{5'3''} | 5'8''
\boxed{30^\circ} | 30^\circ 45'
\boxed{\$3 \text{ and } 20 \text{ cents}} | \$3 \text{ and } 40 \text{ cents}
\boxed{3h 20m} | 3h 40m
\boxed{3 \text{ boys}, 4 \text{ girls}} | 3 \text{ boys}, 5 \text{ girls}
\boxed{3 \text{ boys and } 4 \text{ girls}} | 3 \text{ boys and } 5 \text{ girls}
\boxed{1101_{\text{two}}} | 1101_3
\boxed{2A_{16}} | 2A_{12}
\boxed{0.121_3} | 0.121_4
\boxed{13} | 1101_2
\boxed{-101_2} | -101_3
\boxed{4_5} | 4_6
\boxed{\text{1101}_2} | \text{1101}_3
\boxed{10^{-20}} | 10^{-21}
\boxed{0} | \frac{1}{2^{100}}
\boxed{1e-20} | 2e-20
\boxed{2^{-1000}} | 2^{-1001}
\boxed{10^{400}} | 10^{401}
\boxed{2^{5000}} | 2^{5001}
\boxed{2^{2000}+1} | 2^{2000}
\boxed{100!} | 101!
\boxed{200!} | 201!
\boxed{\frac{1}{100!}} | \frac{1}{101!}
\boxed{6.02\times 10^{23}} | 6.02 \times 10^{24}
\boxed{1.0\times 10^{-31}} | 2.0 \times 10^{-31}
\boxed{e^{-50}} | e^{-51}
\boxed{\binom{2000}{1000}} | \binom{2000}{999}
\boxed{0.00000000000000001} | 0.00000000000000002
\boxed{1-10^{-20}} | 1
\boxed{1+10^{-18}} | 1
\boxed{x+10^{-20}} | x
First 3*4 = 12. Then we add 5 to get 17, and | 17
So we have x = 9, which means that y = 3 * | 3
Let me compute: 12 + 5 = 17. Now we need to divide by the number of | 17
We get $x=4$ and then | 4
The total is 48, but we still have to subtract the | 48
It's either 4 or 5 | 5
Hmm, 12 or maybe 13. | 13
so the value is \boxed{ | 5
Therefore 2 + 2 = | 2
So the sum is 10 + 5 = 15 and multiply by 3 gives 45, then | 45
Step 3: multiply 6 by 7 to get 42. Step 4: | 42
I think the answer could be 5, or it could be 7, let me check | 7
\boxed{50\%} | 0.05
\boxed{1 1/2} | \frac{11}{2}
\boxed{1-1/2} | 1.5
\boxed{4 4/9} | 4
\boxed{0.\overline{36}} | 0.36
\boxed{x \ge 2} | (2, \infty)
\boxed{x > 2} | [2, \infty)
\boxed{x > 2} | 2
\boxed{2} | x > 2
\boxed{x>2} | x<2
\boxed{x>2} | y>2
\boxed{\textbf{(C)}\ 7} | \textbf{(D)}\ 7
\boxed{\textbf{(C)}\ 7} | D
\boxed{\textbf{(C)}\ 7} | 8
\boxed{72\text{ clips}} | 73
\boxed{CBA} | ABC
\boxed{EDA} | DEA
\boxed{ACB} | \text{ABC}
\boxed{QP} | PQ
\boxed{stop} | \text{pots}
\boxed{ADBC} | A, D, C, B
\boxed{1, 4, 9, \ldots, n^2} | n^2
\boxed{n^2} | 1, 4, 9, \ldots, n^2
\boxed{12} | \int_0^{12
\boxed{\begin{cases}x=1\\y=3\end{cases}} | \begin{cases}x=1\\y=2\end{cases}
\boxed{3} | \begin{cases}x=1\\y=3\end{cases}
\boxed{x \equiv 2 \pmod 9} | x \equiv 2 \pmod 7
\boxed{2} | x \equiv 2 \pmod 7
\boxed{7} | x\equiv 2 \pmod 7
\boxed{(3,1)} | x=1,y=3
\boxed{(3,1)} | (1,3)
\boxed{\{1,3\}} | (1,3)
\boxed{(1,3)} | [1,3]
\boxed{1,3} | (3,1)
\boxed{y=1,x=3} | x=1,y=3
\boxed{(1,3)} | 1
\boxed{3} | (1,3)
\boxed{4 \text{ hours } 10 \text{ minutes}} | 4 \text{ hours } 15 \text{ minutes}
\boxed{4 hours 10 minutes} | 4
\boxed{4} | 4 \text{ hours } 10 \text{ minutes}
\boxed{6 \text{ ft } 2 \text{ in}} | 6 \text{ ft } 3 \text{ in}
\boxed{\$4 \text{ and } 25 \text{ cents}} | \$4 \text{ and } 75\text{ cents}
\boxed{5 years 3 months} | 5 years 4 months
\boxed{2 pounds 4 ounces} | 2 pounds 8 ounces
\boxed{1 day 5 hours} | 1 day 6 hours
\boxed{5 minutes 30 seconds} | 5 minutes 3 seconds
\boxed{3 m 20 cm} | 3 m 25 cm
\boxed{3 \frac{1}{2} \text{ hours}} | 3
\boxed{1212_3} | 1212_4
\boxed{777_8} | 777_9
\boxed{1212_3} | 1212_{10}
\boxed{1212} | 50_{10}
\boxed{AB_{16}} | AB_{12}
\boxed{10_{2}} | 10_{16}
\boxed{\frac{1}{2^{60}}} | \frac{1}{2^{61}}
\boxed{3\times10^{-20}} | 5\times10^{-20}
\boxed{\frac{1}{30!}} | \frac{1}{31!}
\boxed{10^{350}} | 10^{351}
\boxed{3^{700}} | 3^{701}
\boxed{500!} | 501!
\boxed{2^{-60}+1} | 1
\boxed{6.63 \times 10^{-34}} | 1.05 \times 10^{-34}
\boxed{0} | 10^{-30}
\boxed{0} | \frac{1}{60!}
So x + 3 = 10. Next, | 10
We have 3 + 4 = 7, which we then multiply by | 7
Thus 15 = 3 * 5, and hence we get that the number of | 5
The area is 24, so half of the area is | 24
Then we add 6 and 7 to get 13. Subtracting | 13
Answer: A or B | A
The answer is B or C | B
The answer is A and C | A
\boxed{A,C} | A
\boxed{A \text{ or } B} | A
\boxed{\textbf{(A)} \text{ and } \textbf{(C)}} | A
\boxed{AC} | A
The answer is A man | A
The answer is a good one | A
The answer is A big number | A
Answer: I think so | I
\boxed{50} | 0.5
\boxed{0.5} | 50
\boxed{0.005} | 50\%
\boxed{5} | 50\%
\boxed{500\%} | 50\%
\boxed{5\%} | 50
\boxed{28} | 0.28
\boxed{2 1/3} | 2
\boxed{2 1/3} | \frac{21}{3}
\boxed{2 1/3} | \frac23
\boxed{21/3} | 2\frac13
\boxed{0.6} | \frac23
\boxed{0.67} | \frac23
\boxed{0.666} | \frac23
\boxed{0.3333} | \frac13
\boxed{0.\overline{6}} | 0.6
\boxed{0.\overline{12}} | 0.12
\boxed{x \ge 3} | x > 3
\boxed{[3,\infty)} | (3,\infty)
\boxed{x<3} | (3,\infty)
\boxed{-1<x<1} | (-1,1]
\boxed{x\neq 2} | x \neq 3
\boxed{(-\infty,2)} | x \ne 2
\boxed{3\pi} | 3
\boxed{pi} | 3.14
\boxed{22/7} | \pi
\boxed{3.14159} | \pi
\boxed{1.414} | \sqrt2
\boxed{\textbf{(B)}\ 12} | C
\boxed{\textbf{(B)}\ 12} | \textbf{(B)}\ 13
<answer>B</answer> | C
<answer>12</answer> | 13
\boxed{\frac{R}{r}} | 1
\boxed{\frac{m}{M}} | \frac{M}{m}
\boxed{M+m} | 2m
\boxed{mgh} | MgH
\boxed{R} | r^2
\boxed{x^2} | x_2
\boxed{x_1} | x_2
\boxed{x_1+x_2} | x_1x_2
\boxed{L_{\oplus}} | L_{\odot}
\boxed{\lambda_{\min}} | \lambda_{\max}
\boxed{\bar{x}} | x
\boxed{\hat{x}} | \bar{x}
\boxed{\vec{v}} | v^2
\boxed{f'(x)} | f(x)
\boxed{x'} | x
\boxed{\sin x} | \cos x
\boxed{\sin(2x)} | 2\sin x
\boxed{\coth x} | \cot hx
\boxed{\sinh x} | \sin x
\boxed{\log_2 3} | \log_3 2
\boxed{\log 3} | \log_2 3
\boxed{\Re z} | \Im z
\boxed{\max(a,b)} | \min(a,b)
\boxed{A \cup B} | A \cap B
\boxed{p \wedge q} | p \vee q
\boxed{p \implies q} | q \implies p
\boxed{A \subset B} | B \subset A
\boxed{a \mid b} | b \mid a
\boxed{a/b} | b/a
\boxed{a-b} | b-a
\boxed{2^3} | 3^2
\boxed{\binom{5}{3}} | \binom{3}{5}
\boxed{5 \choose 2} | 5
\boxed{P(5,2)} | P(2,5)
\boxed{\gcd(4,6)} | \text{lcm}(4,6)
\boxed{1+\frac{1}{x}} | \frac{1}{1+x}
\boxed{-(x-1)} | -x-1
\boxed{3 \text{ apples and 2 pears}} | 3
\boxed{3 \text{ or more}} | 3
\boxed{\text{at most } 3} | 3
\boxed{< 3} | 3
\boxed{\approx 3} | 4
\boxed{3 \text{ times}} | 4
\boxed{not 3} | 3
\boxed{\text{not } 3} | 3
\boxed{\neq 3} | 3
\boxed{\text{none}} | 0
\boxed{\text{infinite}} | 0
\boxed{} | 0
\boxed{?} | 0
\boxed{x} | y
\boxed{\text{Alice}} | \text{Bob}
\boxed{\text{true}} | \text{false}
\boxed{\text{Monday}} | \text{Tuesday}
\boxed{1} or \boxed{2} | 1
\boxed{\frac{0}{0}} | 0
\boxed{\frac{1}{0}} | 0
\boxed{\infty} | -\infty
\boxed{\infty - \infty} | 0
\boxed{nan} | 0
\boxed{\begin{pmatrix}1&2\end{pmatrix}} | \begin{pmatrix}1\\2\end{pmatrix}
\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}} | \begin{pmatrix}1&2\\3&5\end{pmatrix}
\boxed{(1,2,3)} | (1,2,4)
\boxed{1,2,2} | 1,2
\boxed{1,2} | 1,2,3
\boxed{\{1,2\}} | \{1,2,3\}
\boxed{10:30 \text{ am}} | 10:30 \text{ pm}
\boxed{3:4} | 4:3
\boxed{1:2:3} | 1:2:4
\boxed{2 \text{ to } 3} | 3:2
\boxed{20\text{ cm}} | 20\text{ m}
\boxed{7\text{ kg}} | 7\text{ g}
\boxed{20\text{ cm}^2} | 20\text{ m}^2
\boxed{60 \text{ minutes}} | 60 \text{ hours}
\boxed{1} | 60 \text{ minutes}
\boxed{250} | 2.5 \text{ dollars}
\boxed{3 \text{ miles}} | 3 \text{ km}
\boxed{5 \text{ s}} | 5 \text{ m}
\boxed{\frac{GM}{r}} | \frac{Gm}{R}
\boxed{\frac{M}{m}} | 1
\boxed{M-m} | 0
\boxed{V_0} | v_1
\boxed{a_{n-1}} | a_{n+1}
\boxed{a_{n}} | a_{n+1}
\boxed{y''} | y'
\boxed{\frac{dy}{dx}} | \frac{dx}{dy}
\boxed{i} | -i
\boxed{1} | i
\boxed{1+i} | 1
\boxed{e^{i\pi/2}} | 1
\boxed{x_1} | x
\boxed{2x_1} | 2x_2
\boxed{\Delta} | \delta
\boxed{\Delta x} | \delta x
\boxed{\phi} | \Phi
\boxed{\omega_1} | \omega_2
\boxed{4.5 million} | 4.5
\boxed{4.5} | 4.5 \text{ million}
\boxed{3 \text{ thousand}} | 3
\boxed{3 hundred} | 3
\boxed{5 \text{ million}} | 5 \text{ billion}
\boxed{3 pairs} | 6
\boxed{120^\circ} | 60^\circ
\boxed{\pi} | 180^\circ \text{C}
\boxed{1.5\text{ hours and 10 minutes}} | 1.5
\boxed{7 \text{ and a half}} | 7
\boxed{2 \text{ over } 3} | 2
\boxed{5 \text{ below zero}} | 5
\boxed{\text{half of }12} | 12
\boxed{\text{twice } 5} | 5
\boxed{\text{minus } 5} | 5
\boxed{5 \text{ squared}} | 5
\boxed{5 \text{ factorial}} | 5
\boxed{\sqrt{} 5} | 5
\boxed{10 \text{ percent of } 50} | 10
\boxed{10\% \text{ of } 50} | 10
\boxed{20\%-30\%} | 20\%
\boxed{20 \text{ to } 30} | 20
\boxed{5\pm1} | 5
\boxed{5 \pm 1} | 6
\boxed{5...7} | 5
\boxed{12/13/14} | 12
\boxed{3 \text{ r } 2} | 3
\boxed{3 R 2} | 3
\boxed{3 \text{ remainder } 2} | 3
\boxed{3 \text{ remainder } 2} | 3 \text{ remainder } 1
\boxed{(5)} | -5
\boxed{5^-} | 5
\boxed{5^*} | 5
\boxed{5 \mod 7} | 5
\boxed{5 (mod 7)} | 5
\boxed{O(n)} | O(n^2)
\boxed{O(n \log n)} | O(n)
\boxed{P(2,3)} | (2,3,4)
\boxed{f(2)=3} | 2
\boxed{5 = x + 1} | 4
\boxed{\text{Step } 3} | 3
\boxed{x \to 3} | 3
\boxed{1 < 2} | 2
\boxed{3 \times 4 matrix} | 12
\boxed{3\times 4} | 3 \times 5
\boxed{1/3 < x} | \frac13
\boxed{\{x : x > 3\}} | 3
\boxed{\emptyset} | 0
\boxed{\{0\}} | \emptyset
\boxed{\{\emptyset\}} | \emptyset
\boxed{\text{both A and B}} | A
\boxed{\text{neither}} | A
Answer: not A | A
The answer cannot be A | A
The answer is A or maybe B | A
The answer is not 5 | 5
The answer is not 5 but 6. | 5
The answer is more than 5. | 5
The answer is at least 5. | 5
Let me try 5. No, it's not working. Let me try | 5
5 is too small; so 6? | 5
Wait, the total is 17. Hmm, let me recompute | 17
So the answer would be 17, but | 17
\boxed{1101 \text{ (base 3)}} | 1101_2
\boxed{1101_{(3)}} | 1101_2
\boxed{1 2} | 12
\boxed{1 - \frac{1}{2^{100}}} | 1 - \frac{1}{2^{99}}
\boxed{1 - \frac{1}{2^{300}}} | 1 - \frac{1}{2^{299}}
\boxed{\sqrt{2}+10^{-20}} | \sqrt{2}
\boxed{p \land q} | p \lor q
\boxed{x<1 \text{ and } x>3} | (-\infty,1)\cup(3,\infty)
\boxed{x>-1, x<1} | (-\infty,-1)\cup(1,\infty)
\boxed{\mathbb{R}\backslash\{1\}} | \mathbb{R}\setminus\{2\}
\boxed{\text{The answer is not } 12} | 12
The answer is 3 hours 20 minutes. | 3
It takes 3 hours 20 minutes. | 3 \text{ hours}
He needs 3 hours and 20 minutes in total. | 3
The answer is 12? No. It must be | 12
It is 12. That is wrong, | 12
So x = 12, hence the | 12
x = 12 so the total | 12
Answer: B and/or C | B
\boxed{a=9\%, b=4\%} | a=3\%, b=4\%
\boxed{a=3\%, b=4\%} | 4\%
\boxed{4\%} | a=3\%, b=4\%
\boxed{q=50\%} | p=50\%
\boxed{20\% decrease} | 20\% increase
\boxed{20\% \text{ decrease}} | 20\% \text{ increase}
\boxed{20 decrease} | 20\% increase
\boxed{5 \% \text{ no}} | 5\%
\boxed{5\% wrong} | 5
\boxed{\text{not equal to: }5} | 5
\boxed{\text{the value is not: } 5} | 5
\boxed{\text{The answer is not: } 5} | 5
\boxed{\text{no real root is } 5} | 5
\boxed{\text{not equal to: }42} | 42
\boxed{\text{it isn't: } 5} | 5
\boxed{\text{all values except: } 5} | 5
\boxed{\text{less than: } 5} | 5
\boxed{\text{half of it is } 5} | 5
x = 12, therefore | 12
x = 12, which gives us | 12
The value is 12 because the | 12
It is 12, which is wrong. | 12
The answer 12 is wrong. | 12
\boxed{\frac{1}{4} = 20\%} | \frac{1}{4}
"""


def pairs(table: str) -> list[tuple[str, ...]]:
    return [tuple(line.split(" | ")) for line in table.strip().splitlines()]


def judged(table: str, correct: bool) -> list[tuple[str, ...]]:
    """The pairs of a table with the other verdict."""
    return [
        (text, gold) for text, gold in pairs(table) if check({"gold": gold, "text": text})["correct"] is not correct
    ]


def test_the_same_answer_written_in_another_way_is_right() -> None:
    assert len(pairs(SAME)) > 500 and judged(SAME, correct=True) == []


def test_another_answer_is_wrong_however_alike_it_looks() -> None:
    assert len(pairs(DIFFERENT)) > 400 and judged(DIFFERENT, correct=False) == []


@pytest.mark.parametrize(
    ("gold", "found", "method"),
    [
        ("1/2", "0.5", "value"),
        ("even", "even", "letters"),
        ("\\ldots", "\\dots", "text"),
        ("1, 2, \\ldots, n", "2", "value"),
        ("?", "n", "text"),
    ],
)
def test_the_method_says_what_a_verdict_rests_on(gold: str, found: str, method: str) -> None:
    assert same(gold, found)[1] == method


UNREADABLE = r"""
\frac{1}{2
1, 2, \ldots, n
\begin{cases} 1 & n \text{ even} \\ 0 & n \text{ odd} \end{cases}
\boxed
{"ground_truth": "7"}
))((
x^
\frac{}{}
\foo{3}
???
2 +
https://example.com/a.png
t(0,4]
proof
\text{N/A}
[]
()
not provided
None
"""
READABLE = r"""
x \equiv 3 \pmod 7
(1,2]
\textbf{(B)}\ 12
3 hours 20 minutes
10:30
2516_7
\begin{pmatrix}1\\2\end{pmatrix}
f(x)=cx \text{ for any constant } c
50\%
60^\circ
m_{\max}=n^{2}-n-1
\mathbb{R}\setminus\{3\}
No real solutions
No solution
Yes
none
\{\}
$3$
\hbar \omega(v+1 / 2)-\frac{E_{0}^{2} e^{2}}{2 m \omega^{2}}
\frac{dM}{dt}=\frac{10^{5} L_{\odot}}{0.007 c^{2} M_{\odot}^{6}} M^{6}
np.arcsin(10/13)
"""


@pytest.mark.parametrize(("answers", "readable"), [(UNREADABLE, False), (READABLE, True)])
def test_a_gold_answer_is_readable_or_a_mistake_of_the_data(answers: str, readable: bool) -> None:
    assert [answer for answer in answers.strip().splitlines() if is_readable(answer) is not readable] == []


def test_a_text_without_an_answer_has_none() -> None:
    assert check({"gold": "7", "text": "I do not know"}) == {"correct": False, "extracted": None, "method": "none"}


@pytest.mark.parametrize(
    ("written", "unified"),
    [
        ("\u2212\u00bd", r"-\frac{1}{2}"),
        ("x\u00b2\u2070", "x^{20}"),
        (r"\text{42}.", "42"),
        (r"0.1\overline{6}", r"\frac{15}{90}"),
        ("-2 1/3", r"-(2+\frac{1}{3})"),
        (r"1\,000{,}000", "1000000"),
        ("1, 000", "1, 000"),
        (r"\begin{cases} x=1 \\ y=2 \end{cases}", "x=1, y=2"),
    ],
)
def test_one_notation_for_many(written: str, unified: str) -> None:
    assert unify(written) == unified


@pytest.mark.parametrize(
    "run", [" ", "~", "\\ ", "9", "0.12", "(", "}", "base ", "sqrt(", r"\text{ ", "5 x ", "A", "1,"]
)
def test_the_time_that_one_notation_takes_grows_with_the_text_and_not_with_its_square(run: str) -> None:
    start = time.process_time()
    unify("5" + run * 8000 + "x")
    assert time.process_time() - start < 0.5
